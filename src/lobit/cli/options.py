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
