"""`lobit eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, Json, PixelRange, Threads
from lobit.cli.progress import counter

EXAMPLE = "Example: lobit eval lobit-demo/w2a2.lobit"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command("eval", epilog=EXAMPLE)(evaluate)


def evaluate(
    net: Annotated[Path, typer.Argument(metavar="NET", help="A .lobit file, the folder of a run, or a checkpoint.")],
    data: Annotated[str | None, typer.Option(help="The data set, where the file does not say it.")] = None,
    data_dir: DataDir = None,
    pixel_range: PixelRange = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 1000,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Measure the accuracy on the test set: of a file, or of a run's model and its file side by side."""
    from lobit.report.evaluate import evaluate

    with counter("images") as progress:
        found = evaluate(net, data=data, data_dir=data_dir, pixel_range=pixel_range, batch=batch, threads=threads, progress=progress)
    typer.echo(json.dumps(found.as_dict()) if as_json else str(found))
