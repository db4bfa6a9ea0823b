"""The float32 steps of a chain and its rounding to codes, as the engine does them, on one number for each channel: for passes that compute constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.capture.passes.monotone import Operands

Floats = NDArray[np.float32]
STEPS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "add": lambda x, k: x + k,
    "sub": lambda x, k: x - k,
    "mul": lambda x, k: x * k,
    "div": lambda x, k: x / k,
    "max": lambda x, k: np.where(x > k, x, k),
    "min": lambda x, k: np.where(x < k, x, k),
}


def apply_steps(steps: Operands, x: Floats) -> Floats:
    """A chain's value before it becomes codes, float32 of the shape (C,) of ``x``."""
    with np.errstate(all="ignore"):
        for op, operand in steps:
            if operand is not None:
                x = STEPS[op](x, operand)
            elif op == "round":
                x = np.rint(x)
    return x


def to_codes(x: Floats, code: CodeType, zero: int) -> NDArray[np.int64]:
    """Codes of finite floats."""
    if code.alphabet is Alphabet.ODD:
        return np.where(x >= 0, 1, -1).astype(np.int64)
    if code.alphabet is Alphabet.LOG2:
        mantissa, exponent = np.frexp(np.abs(x))  # 0.5 <= mantissa < 1
        exponent = exponent - 1 + (2 * mantissa >= np.sqrt(np.float32(2)))
        size = np.where((exponent < 0) | (x == 0), 0, 2 ** np.clip(exponent.astype(np.int64), 0, code.hi.bit_length() - 1))
        return np.where(x < 0, -size, size)
    return np.clip(np.rint(x), code.lo - zero, code.hi - zero).astype(np.int64) + zero
