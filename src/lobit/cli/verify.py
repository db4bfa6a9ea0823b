"""`lobit verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, Json, Run, Threads
from lobit.cli.progress import counter
from lobit.errors import LobitError

EXAMPLE = "Example: lobit verify runs/digits-w2a2 digits.lobit"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(verify)


def verify(
    run: Run,
    file: Annotated[
        Path | None, typer.Argument(help="Its .lobit file; model.lobit in the run's folder by default.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that run together.")] = 1000,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Compare a packed file with its PyTorch model on the whole test set, code by code.

    The status is 2 where they differ.
    """
    from lobit.capture import verify
    from lobit.runtime import load
    from lobit.training import load_model, load_test_set

    packed = run / "model.lobit" if file is None else file
    model, recipe = load_model(run)
    session = load(packed, threads=threads)
    images, _ = load_test_set(recipe, data_dir)
    with counter("images") as progress:
        report = verify(model, session, images, batch=batch, progress=progress)
    typer.echo(json.dumps(report.as_dict()) if as_json else str(report))
    if not report.ok:
        raise LobitError(f"{packed} does not compute what the model of {run} does; export it again")
