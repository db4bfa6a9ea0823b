"""`lobit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import folder

EXAMPLE = "Example: lobit demo --out /tmp/lobit-demo"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(demo)


def demo(
    out: Annotated[Path, typer.Option(parser=folder, metavar="FOLDER", help="Folder to write; an earlier demo in it is replaced.")] = Path(
        "lobit-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training.")] = 1,
) -> None:
    """Train four small nets on handwritten digits, export and run them, compare them in a table and a page."""
    from lobit.report.demo import run_demo

    run_demo(out, seed)
