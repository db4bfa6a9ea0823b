"""Inputs of a network from files, folders, ``.npy`` arrays and standard input, one after another; what cannot be read is named and the rest goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobit.data.arrays import rows_of_file, rows_of_stream
from lobit.data.pictures import WHITE, endings, read_picture
from lobit.errors import ConfigError, ShapeError

STDIN = "-"
ARRAY = ".npy"


@dataclass(frozen=True, slots=True)
class Scaling:
    """How pixels become inputs: 0 .. ``white`` to ``low .. high``, turned round first where ``invert`` is set. ``white`` counts for arrays; images have 255."""

    low: float
    high: float
    white: int = WHITE
    invert: bool = False

    def apply(self, pixels: NDArray[np.uint8], white: int) -> NDArray[np.float32]:
        """Map pixels by a table, as `lobit.data.DataSet.scale` does.

        Raises
        ------
        ShapeError
            For a pixel above ``white``.
        """
        if pixels.max(initial=0) > white:
            raise ShapeError(f"it has a pixel of {pixels.max()}; the largest is {white}: say another with --white")
        levels = np.arange(white + 1, dtype=np.float64)
        table = (self.low + (self.high - self.low) * (levels[::-1] if self.invert else levels) / white).astype(np.float32)
        return table[pixels]


@dataclass(frozen=True, slots=True)
class Sample:
    """One input: its name, float32 of the network's shape, and what was done to make it fit."""

    name: str
    x: NDArray[np.float32]
    done: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An input that was left out, and why."""

    name: str
    why: str


def check_names(names: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse names of nothing, before any work.

    Raises
    ------
    ConfigError
        Naming the first that does not exist, or standard input where it is given twice.
    """
    if [os.fspath(name) for name in names].count(STDIN) > 1:
        raise ConfigError("standard input, -, can be read once")
    for name in names:
        try:
            if os.fspath(name) != STDIN and not Path(name).exists():
                raise ConfigError(f"there is no file or folder {os.fspath(name)!r}; check the name")
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read {os.fspath(name)!r}: {getattr(error, 'strerror', None) or error}") from None


def samples(names: Sequence[str | os.PathLike[str]], shape: tuple[int, ...], scaling: Scaling | None) -> Iterator[Sample | Unreadable]:
    """Read inputs one after another; of a folder the images and arrays in it and below, sorted by name.

    Parameters
    ----------
    names : sequence of path-like
        Image files, ``.npy`` files, folders, and ``-`` for an array on standard input.
    shape : tuple of int
        What the network takes, without the batch axis.
    scaling : Scaling or None
        None where it is not known; pixels are then refused, floats are not.
    """
    for name in names:
        if os.fspath(name) == STDIN:
            yield from _array(STDIN, rows_of_stream(sys.stdin.buffer, shape), scaling)
        elif Path(name).is_dir():
            yield from _folder(Path(name), shape, scaling)
        else:
            yield from _file(Path(name), shape, scaling)


def _folder(folder: Path, shape: tuple[int, ...], scaling: Scaling | None) -> Iterator[Sample | Unreadable]:
    known = {ARRAY, *endings()}
    found = False
    for where, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in known:
                found = True
                yield from _file(Path(where) / name, shape, scaling)
    if not found:
        yield Unreadable(str(folder), "it holds no images and no .npy files")


def _file(path: Path, shape: tuple[int, ...], scaling: Scaling | None) -> Iterator[Sample | Unreadable]:
    if path.suffix.lower() == ARRAY:
        yield from _array(str(path), rows_of_file(path, shape), scaling)
        return
    try:
        picture = read_picture(path, shape)
        yield Sample(str(path), _known(scaling).apply(picture.pixels, WHITE), picture.done)
    except ShapeError as error:
        yield Unreadable(str(path), str(error))


def _array(name: str, rows: Iterator[NDArray[np.float32] | NDArray[np.uint8]], scaling: Scaling | None) -> Iterator[Sample | Unreadable]:
    index = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except ShapeError as error:  # the whole array, or its end
            yield Unreadable(name, str(error))
            return
        each = f"{name}[{index}]"
        index += 1
        try:
            if row.dtype == np.uint8:
                known = _known(scaling)
                x = known.apply(np.asarray(row, np.uint8), known.white)
            else:
                x = np.array(row, np.float32)
        except ShapeError as error:
            yield Unreadable(each, str(error))
            continue
        yield Sample(each, x) if np.isfinite(x).all() else Unreadable(each, "it holds values that are not finite")


def _known(scaling: Scaling | None) -> Scaling:
    if scaling is None:
        raise ShapeError("the network's file does not say which range pixels are mapped to; give it, such as --range 0 1")
    return scaling
