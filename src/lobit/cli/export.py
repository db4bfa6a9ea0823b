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
    from lobit.capture import export
    from lobit.training import load_model, load_test_set

    model, recipe = load_model(run)
    images, _ = load_test_set(recipe, data_dir)
    typer.echo(str(export(model, images[:EXAMPLES], file, strict=strict)))
