"""Arrays from ``.npy`` files and pipes, row by row, never as a whole in memory and never with pickle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lobit.errors import ShapeError


def rows_of_file(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Rows of shape ``shape`` from a ``.npy`` file that is mapped into memory, float32 or uint8.

    Raises
    ------
    ShapeError
        When it is no such file, or its rows have another shape or dtype.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ShapeError(f"it is no readable .npy file of plain numbers: {_first_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise ShapeError("it holds several arrays; save each as a .npy file of its own")
    yield from array.reshape(len_and_shape(array.shape, array.dtype, shape))


def rows_of_stream(stream: BinaryIO, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """The same from a stream in ``.npy`` format, which need not be seekable.

    Raises
    ------
    ShapeError
        As above; also when it ends early.
    """
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        stated, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ShapeError(f"it is no .npy array of plain numbers: {_first_line(error)}") from None
    count, *_ = len_and_shape(stated, dtype, shape)
    if fortran and len(stated) > 1:
        raise ShapeError("it is in Fortran order, which cannot be read row by row; send numpy.ascontiguousarray(x)")
    size = math.prod(shape) * dtype.itemsize
    for row in range(count):
        data = _read(stream, size)
        if len(data) < size:
            raise ShapeError(f"it ends after {row} of {count} rows")
        yield np.frombuffer(data, dtype).reshape(shape)


def len_and_shape(found: tuple[int, ...], dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape ``(N, *shape)`` that an array of shape ``found`` has; a single row, and grey images without their channel axis, will do.

    Raises
    ------
    ShapeError
        For another shape or dtype.

    Examples
    --------
    >>> len_and_shape((5, 28, 28), np.dtype("u1"), (1, 28, 28))
    (5, 1, 28, 28)
    """
    if dtype not in (np.dtype(np.float32), np.dtype(np.uint8)):
        raise ShapeError(f"it has dtype {dtype}; give float32 inputs or uint8 pixels: x.astype(numpy.float32)")
    if found[1:] == shape and len(found) == len(shape) + 1:
        return found
    if found == shape:
        return (1, *shape)
    if len(shape) == 3 and shape[0] == 1 and len(found) == 3 and found[1:] == shape[1:]:
        return (found[0], *shape)
    raise ShapeError(f"it has shape {found}; the network takes (N, {', '.join(map(str, shape))})")


def _read(stream: BinaryIO, count: int) -> bytes:
    """Exactly ``count`` bytes, or those before the end; a pipe may hand over fewer at a time."""
    parts, left = [], count
    while left:
        part = stream.read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
