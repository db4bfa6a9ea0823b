"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def folder(text: str) -> Path:
    """A folder's name; an empty one is refused."""
    if not text:
        raise typer.BadParameter("it is empty; name a folder, or leave the option out")
    return Path(text)


DataDir = Annotated[Path | None, typer.Option(help="Folder of the data sets; by default what LOBIT_DATA names.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint.")]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads to run with.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
PixelRange = Annotated[
    tuple[float, float] | None,
    typer.Option("--range", metavar="LOW HIGH", help="Map pixels to this range, where the file does not say it."),
]
