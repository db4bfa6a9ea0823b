"""Which of the usual ways a resizing's tables follow, so that a float network can name it and run its library's own operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Way = Literal["nearest", "bilinear", "corners"]
"""Nearest by the ratio of the sizes; bilinear between the middles of pixels; bilinear with aligned corners."""
Tables = Mapping[str, NDArray[Any]]
NEAR = 1e-5


def way_of(tables: Tables, size: tuple[int, int]) -> Way | None:
    """The way that both axes follow, None for tables of another kind.

    Parameters
    ----------
    tables : mapping of str to array
        ``rows`` and ``columns``, and for a mix ``row_weights`` and ``column_weights``.
    size : tuple of int
        Height and width of the input.
    """
    ways: tuple[Way, ...] = ("bilinear", "corners") if "row_weights" in tables else ("nearest",)
    axes = (("rows", "row_weights", size[0]), ("columns", "column_weights", size[1]))
    return next((way for way in ways if all(_follows(tables[at], tables.get(share), before, way) for at, share, before in axes)), None)


def _follows(places: NDArray[Any], shares: NDArray[Any] | None, before: int, way: Way) -> bool:
    after = len(places)
    i = np.arange(after)
    if shares is None:
        return bool((places == i * before // after).all())
    at = i * ((before - 1) / max(after - 1, 1)) if way == "corners" else np.clip((i + 0.5) * before / after - 0.5, 0, before - 1)
    last = np.minimum(places + shares, before - 1)  # behind the last place there is nothing to mix with
    return bool((np.abs(last - at) <= NEAR * max(before, 1)).all())
