"""`lobit export`."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lobit.cli.options import DataDir
from lobit.errors import LobitError

EXAMPLE = "Example: lobit export runs/digits-w2a2 digits.lobit; or to C: lobit export --target c digits.lobit digits-c"
EXAMPLES = 16
"""How many test images a file is verified with before it is written."""
VECTORS = 4
"""How many test images become test vectors of exported C."""


class Target(StrEnum):
    """What a network can be exported to."""

    LOBIT = "lobit"
    C = "c"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(export)


def export(
    net: Annotated[Path, typer.Argument(metavar="NET", help="Folder of a run, or a checkpoint; for --target c also a .lobit file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .lobit file to write, or for --target c the folder.")],
    data_dir: DataDir = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse layers that are not exact.")] = False,
    target: Annotated[Target, typer.Option(help="A packed file, or C99 for microcontrollers.")] = Target.LOBIT,
    name: Annotated[str, typer.Option(help="Prefix of what exported C defines.")] = "net",
) -> None:
    """Export a trained run to a packed file, verified before it appears, or a network to C99 with its test vectors."""
    if target is Target.C:
        _export_c(net, out, data_dir, name, strict=strict)
        return
    if name != "net":
        raise LobitError("--name belongs to --target c; leave it out")
    if net.suffix == ".lobit":
        raise LobitError(f"{str(net)!r} is a packed file already; name the folder of a run, or export it to C with --target c")
    typer.echo(_export_run(net, out, data_dir, strict=strict)[0])


def _export_run(run: Path, file: Path, data_dir: Path | None, *, strict: bool) -> tuple[str, Any]:
    """Pack a run, verified; return what to say of it and the first test images."""
    import torch

    from lobit.capture import export
    from lobit.data import load_data
    from lobit.report.about import about_run
    from lobit.training import load_model

    model, recipe = load_model(run)
    data = load_data(recipe.data.name, data_dir)
    images = torch.from_numpy(data.scale(data.test_images[:EXAMPLES], recipe.data.low, recipe.data.high))
    return str(export(model, images, file, strict=strict, about=about_run(recipe, data))), images[:VECTORS].numpy()


def _export_c(net: Path, folder: Path, data_dir: Path | None, name: str, *, strict: bool) -> None:
    from lobit.targets import export_c
    from lobit.targets.folder import check_folder
    from lobit.targets.text import check_identifier

    check_identifier(name)
    check_folder(folder)
    if not net.is_dir() and net.suffix != ".ckpt":
        typer.echo(str(export_c(net, folder, name=name)))
        return
    with tempfile.TemporaryDirectory() as place:  # a run passes the same verification as for a packed file
        packed = Path(place) / "model.lobit"
        _, example = _export_run(net, packed, data_dir, strict=strict)
        typer.echo(str(export_c(packed, folder, name=name, example=example)))
