"""`lobit export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, Run

EXAMPLE = "Example: lobit export runs/digits-w2a2 digits.lobit"
EXAMPLES = 16
"""How many test images a file is verified with before it is written."""


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(export)


def export(
    run: Run,
    file: Annotated[Path, typer.Argument(help="The .lobit file to write.")],
    data_dir: DataDir = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse layers that are not exact.")] = False,
) -> None:
    """Export a trained run to a packed file, verified before it appears."""
    import torch

    from lobit.capture import export
    from lobit.data import load_data
    from lobit.report.about import about_run
    from lobit.training import load_model

    model, recipe = load_model(run)
    data = load_data(recipe.data.name, data_dir)
    images = torch.from_numpy(data.scale(data.test_images[:EXAMPLES], recipe.data.low, recipe.data.high))
    typer.echo(str(export(model, images, file, strict=strict, about=about_run(recipe, data))))
