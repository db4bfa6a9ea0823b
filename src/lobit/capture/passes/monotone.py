"""Which way a chain of steps goes as its input grows: the table that lets a pass reorder or fold it.

Every step is one float32 operation with a constant, rounded once. Rounding to nearest is monotone, so each is monotone in its input as the exact
operation is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Operands = Sequence[tuple[str, NDArray[np.float32] | None]]


def _rises(_: NDArray[np.float32] | None) -> NDArray[np.int32]:
    return np.ones(1, np.int32)


def _sign(constant: NDArray[np.float32] | None) -> NDArray[np.int32]:
    return np.sign(constant).astype(np.int32)  # type: ignore[arg-type]  # checked graphs give mul and div an operand


DIRECTION: dict[str, Callable[[NDArray[np.float32] | None], NDArray[np.int32]]] = {
    "to_float": _rises,
    "round": _rises,
    "add": _rises,
    "sub": _rises,
    "max": _rises,
    "min": _rises,
    "mul": _sign,
    "div": _sign,
}


def directions(steps: Operands, channels: int) -> NDArray[np.int32] | None:
    """Per channel +1 where the chain never falls, -1 where it never rises, 0 where it is constant.

    Returns
    -------
    ndarray of shape (channels,), or None
        None when a step is not in the table.
    """
    total = np.ones(channels, np.int32)
    for op, constant in steps:
        if op not in DIRECTION:
            return None
        total *= DIRECTION[op](constant)
    return total


def never_falls(steps: Operands, channels: int) -> bool:
    """Whether a chain is non-decreasing in every channel."""
    way = directions(steps, channels)
    return way is not None and bool((way >= 0).all())
