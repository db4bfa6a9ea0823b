"""A ``.npy`` file of scores that grows row by row and appears whole, however many rows come."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lobit.atomic import atomic_file
from lobit.errors import ConfigError
from lobit.format.file import check_target


class ScoresFile:
    """Writes rows of ``count`` float32; the header comes last, into the room that is kept for it."""

    def __init__(self, stream: BinaryIO, count: int) -> None:
        self._stream, self._count, self._rows = stream, count, 0
        stream.write(self._header())

    def add(self, scores: NDArray[Any]) -> None:
        """Append a row."""
        self._stream.write(np.asarray(scores, "<f4").tobytes())
        self._rows += 1

    def finish(self) -> None:
        """Write the number of rows."""
        self._stream.seek(0)
        self._stream.write(self._header())

    def _header(self) -> bytes:
        """Padded by numpy so that a larger number of rows takes no more room."""
        buffer = io.BytesIO()
        npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._count)})
        return buffer.getvalue()


@contextmanager
def scores_file(path: Path, count: int) -> Iterator[ScoresFile]:
    """Open a file of rows of ``count`` scores; it appears when the block ends without an error.

    Raises
    ------
    ConfigError
        When the name does not end in .npy.
    ExportError
        When no file can be written there.
    """
    if path.suffix != ".npy":
        raise ConfigError(f"scores are written as a .npy file, not {str(path)!r}; name it so")
    check_target(path)
    with atomic_file(path) as stream:
        rows = ScoresFile(stream, count)
        yield rows
        rows.finish()
