"""`lobit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, Run
from lobit.errors import LobitError

EXAMPLE = "Example: lobit verify runs/digits-w2a2 digits.lobit"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(verify)


def verify(run: Run, file: Annotated[Path, typer.Argument(help="Its .lobit file.")], data_dir: DataDir = None) -> None:
    """Compare a packed file with its PyTorch model on the whole test set, code by code."""
    from lobit.capture import verify
    from lobit.training import load_model, load_test_set

    model, recipe = load_model(run)
    images, _ = load_test_set(recipe, data_dir)
    report = verify(model, file, images)
    typer.echo(str(report))
    if not report.ok:
        raise LobitError(f"{file} does not compute what the model of {run} does; export it again")
