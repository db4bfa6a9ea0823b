"""Checks of the arrays that a session is given, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit import _native
from lobit.errors import ShapeError


def check_inputs(shapes: Mapping[str, tuple[int, ...]], arrays: Sequence[Any]) -> tuple[int, list[NDArray[np.float32]]]:
    """Check the inputs of a network and bring them into one piece.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes of the inputs, without the batch axis.
    arrays : sequence
        What the caller gave.

    Returns
    -------
    int
        The batch size.
    list of float32 ndarray
        C-contiguous; views where they already were.

    Raises
    ------
    ShapeError
        For a wrong number of inputs, a wrong type, dtype or shape, different batch sizes, or a value that is not finite.
    """
    if len(arrays) != len(shapes):
        raise ShapeError(f"{len(arrays)} inputs were given; the network has {len(shapes)}: {', '.join(shapes)}")
    checked = [_check(name, shape, array) for (name, shape), array in zip(shapes.items(), arrays, strict=True)]
    batches = {len(array) for array in checked}
    if len(batches) != 1:
        raise ShapeError(f"the inputs have different batch sizes, {sorted(batches)}; give one batch of all of them")
    return batches.pop(), checked


def _check(name: str, shape: tuple[int, ...], array: Any) -> NDArray[np.float32]:
    wanted = f"(N, {', '.join(map(str, shape))})"
    if isinstance(array, np.ma.MaskedArray):
        raise ShapeError(f"input {name!r} is a masked array; fill in what is masked with x.filled(value)")
    if not isinstance(array, np.ndarray):
        raise ShapeError(
            f"input {name!r} is a {type(array).__name__}, not a numpy array; give a float32 array of shape {wanted} (a tensor: x.numpy())"
        )
    if array.dtype != np.float32:
        raise ShapeError(f"input {name!r} has dtype {array.dtype}, it must be float32; convert it with x.astype(numpy.float32)")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise ShapeError(f"input {name!r} has shape {array.shape}, it must be {wanted}; the first axis is the batch, also for one sample")
    checked: NDArray[np.float32] = np.ascontiguousarray(array)
    if not _native.all_finite(checked):
        raise ShapeError(
            f"input {name!r} holds {int((~np.isfinite(checked)).sum())} values that are not finite; remove NaN and infinity first"
        )
    return checked
