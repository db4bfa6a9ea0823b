"""The rounding of floats to powers of two, by its definition, and the floats where it could go wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lobit.bits import CodeType

CODES = [CodeType("log2", bits) for bits in (2, 3, 4)]
ROOT = float(np.float32(math.sqrt(2)))


def expected(x: float, code: CodeType) -> int:
    """The definition, with Python's frexp."""
    if math.isnan(x):
        return code.lo
    if math.isinf(x):
        return code.hi if x > 0 else code.lo
    half, exponent = math.frexp(abs(x))  # |x| = (2 half) * 2^(exponent - 1)
    exponent = exponent - 1 + (2 * half >= ROOT)
    size = 0 if exponent < 0 or x == 0 else 2 ** min(exponent, 2 ** (code.bits - 1) - 2)
    return int(math.copysign(size, x)) if size else 0


def boundaries() -> np.ndarray[Any, Any]:
    """Both sides of every power of two and of every root between two, zeros, subnormals, extremes."""
    ends = [np.float32(2.0**e) for e in range(-149, 128)] + [np.float32(ROOT * 2.0**e) for e in range(-126, 127)]
    around = [value for end in ends for value in (np.nextafter(end, np.float32(0)), end, np.nextafter(end, np.float32(np.inf)))]
    x = np.float32([0.0, *around, np.finfo(np.float32).max])
    return np.concatenate([x, -x])
