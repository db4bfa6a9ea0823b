"""The folder of a sweep: what may be written there, and whether a sweep in it can be gone on with."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lobit.atomic import atomic_file, new_folder
from lobit.errors import ConfigError
from lobit.recipes import Recipe

SETTINGS = "sweep.yaml"
FREE_FIELDS = {"description"}
"""Fields of a recipe that do not change a number."""
_CELL = re.compile(r"w\d+a\d+-seed\d+")


@contextmanager
def open_folder(folder: Path, name: str, base: Recipe, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make a sweep's folder ready, with its settings in it, and keep other sweeps out of it while the block runs.

    Parameters
    ----------
    folder : Path
    name : str
        Of the recipe.
    base : Recipe
        Of every cell, but for its bits and seed: a sweep may be gone on with at more bits and seeds, not with other settings.
    resume, overwrite : bool
        Go on with what is there, or take it away and start anew.

    Raises
    ------
    ConfigError
        When the folder holds a sweep that is neither to be resumed nor overwritten, one of another recipe, one that is being written, or cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other; choose one")
    settings = {"name": name, **shared_fields(base)}
    try:
        held = _held(folder)
        if held and not (resume or overwrite):
            raise ConfigError(
                f"{str(folder)!r} holds {held}; --resume goes on with it and keeps what is finished, --overwrite starts anew, --out names another folder"
            )
        if resume and (folder / SETTINGS).exists():
            _check_same(folder / SETTINGS, settings)
        with new_folder(folder), _locked(folder):
            if overwrite:
                _clear(folder)
            with atomic_file(folder / SETTINGS) as stream:
                stream.write(yaml.safe_dump(settings, sort_keys=False).encode())
            yield
    except OSError as error:
        raise ConfigError(f"cannot write to {str(folder)!r}: {error.strerror or error}; name a writable folder with --out") from error


def shared_fields(base: Recipe) -> dict[str, Any]:
    """The fields of a recipe that all nets of a sweep share: all but bits and seed."""
    fields = base.model_dump(exclude={"seed"})
    del fields["model"]["bits"]
    return fields


def _held(folder: Path) -> str:
    """What of a sweep is there; empty where nothing is."""
    if (folder / SETTINGS).exists():
        return "a sweep"
    if runs := [path for path in _cell_folders(folder) if (path / "checkpoints").exists()]:
        return f"{len(runs)} runs of a sweep"
    return ""


def _cell_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("w*a*-seed*") if _CELL.fullmatch(path.name) and path.is_dir())


def _check_same(path: Path, wanted: dict[str, Any]) -> None:
    try:
        started = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        started = None
    if not isinstance(started, dict):
        raise ConfigError(f"{str(path)!r} is damaged; put it back, or start anew with --overwrite")
    changed = [field for field in wanted if field not in FREE_FIELDS and started.get(field) != wanted[field]]
    if changed:
        listed = "; ".join(f"{field} was {started.get(field)!r}, now is {wanted[field]!r}" for field in changed)
        raise ConfigError(
            f"{str(path.parent)!r} holds a sweep of other settings ({listed}); --overwrite starts anew, --out names another folder"
        )


def _clear(folder: Path) -> None:
    """Take the old sweep away. Its settings go last, so that what a kill leaves half cleared is still known as a sweep's."""
    for path in _cell_folders(folder):
        shutil.rmtree(path)
    for name in ("latency.json", "sweep.json", "sweep.csv", "sweep.html", "heatmap.svg", "pareto.svg", "energy.svg"):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, whatever ends it."""
    with (folder / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another sweep is writing to {str(folder)!r}; wait for it, or name another folder with --out") from None
        yield
