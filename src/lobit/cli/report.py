"""`lobit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir
from lobit.extras import missing_extra

EXAMPLE = "Example: lobit report runs/digits-w2a2"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(report)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; <run>/report.html by default.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the page of a run: figures, curves, layers, codes, where accuracy is lost, answers, and how to repeat it."""
    from lobit.report.run_page import write_run_page

    typer.echo(f"page: {write_run_page(run, out, data_dir=data_dir)}")


def try_to_write(run: Path, data_dir: Path | None) -> None:
    """Write the page of a run that has just ended; without the packages for it, say how to get them and go on."""
    try:
        report(run, None, data_dir)
    except ModuleNotFoundError as error:
        typer.echo(f"no page: {missing_extra('it', error)}; then: lobit report {run}", err=True)
