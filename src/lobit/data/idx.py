"""The idx format of MNIST: a big-endian header (0, 0, 8 for uint8, number of axes, their lengths), then the bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ConfigError


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a plain or gzipped idx file of uint8 that must have ``shape``.

    Raises
    ------
    ConfigError
        When the file cannot be read, is truncated, or holds something else; it says which.
    """
    expected = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
    limit = len(expected) + math.prod(shape)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(limit + 1)  # one byte more than allowed, so that a longer file shows without being read
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {path}: {error}; the file is damaged or unreadable, so replace it") from error
    if not raw.startswith(expected):
        raise ConfigError(f"{path} does not begin like an idx file of uint8 with shape {shape}; replace it with the official file")
    if len(raw) != limit:
        raise ConfigError(
            f"{path} holds {'more' if len(raw) > limit else 'fewer'} bytes than shape {shape} takes; replace it with the official file"
        )
    return np.frombuffer(raw, np.uint8, offset=len(expected)).reshape(shape)
