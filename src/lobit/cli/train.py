"""`lobit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, folder
from lobit.errors import Interrupted

EXAMPLE = "Example: lobit train mnist-mlp-small-w1a1 --data-dir ~/data --epochs 5"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(train)


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe (see: lobit recipes), or path of a YAML file.")],
    out: Annotated[Path | None, typer.Option(parser=folder, metavar="FOLDER", help="Folder of the run; runs/<recipe> by default.")] = None,
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write <out>/report.html, the page of the run.")] = True,
) -> None:
    """Train the model of a recipe, test its best epoch, and export it to <out>/model.lobit; <out>/report.html shows it."""
    from lobit.cli.export import export
    from lobit.cli.report import try_to_write
    from lobit.training import keep_freed_memory, train

    keep_freed_memory()  # this process trains and does nothing else
    result = train(recipe, out=out, data_dir=data_dir, resume=resume, overwrite=overwrite, epochs=epochs, seed=seed, threads=threads)
    try:
        scored = "" if result.validation_accuracy is None else f", validation accuracy {result.validation_accuracy:.2%}"
        typer.echo(
            f"test accuracy {result.test_accuracy:.2%} (error {1 - result.test_accuracy:.2%}) at epoch {result.epoch}{scored}; {result.seconds:.0f} s"
        )
        typer.echo(f"run: {result.folder}")
        export(Path(result.checkpoint), Path(result.folder) / "model.lobit", data_dir)
        if report:
            try_to_write(Path(result.folder), data_dir)
    except KeyboardInterrupt as stop:
        raise Interrupted(f"{result.folder!r} is trained; its net is still to be exported") from stop
