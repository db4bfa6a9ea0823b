"""A chain without its rounding is a line with a floor and a ceiling: ``clamp(a x + b, low, high)``, per channel. Steps compose; thresholds have one too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lobit.bits import CodeType

Reals = NDArray[np.float64]
NEVER = 2.0**31 - 1
"""A threshold of this size is met by every sum or by none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """``clamp(a x + b, low, high)``; each array has shape (1,) or (C,)."""

    a: Reals
    b: Reals
    low: Reals
    high: Reals

    @classmethod
    def of(cls, a: float, b: float) -> Piece:
        """A line without bounds."""
        return cls(np.array([a]), np.array([float(b)]), np.array([-np.inf]), np.array([np.inf]))

    @property
    def uniform(self) -> bool:
        """Whether all channels have one factor and one offset."""
        return bool((self.a == self.a[0]).all() and (self.b == self.b[0]).all())

    @property
    def rises(self) -> bool:
        """Whether no channel falls."""
        return bool((self.a >= 0).all())

    @property
    def is_scale(self) -> bool:
        """Whether it is one positive factor, and bounds."""
        return self.uniform and bool(self.a[0] > 0) and not self.b.any()

    @property
    def is_identity(self) -> bool:
        """Whether nothing but bounds is left."""
        return bool((self.a == 1).all()) and not self.b.any()

    @property
    def clamps(self) -> bool:
        """Whether there are bounds."""
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())

    def scaled(self, k: float | Reals) -> Piece:
        """Times ``k``."""
        k = np.atleast_1d(np.asarray(k, np.float64))
        with np.errstate(invalid="ignore"):
            ends = self.low * k, self.high * k
        low, high = (np.where(k == 0, 0.0, np.where(k > 0, *pair)) for pair in (ends, ends[::-1]))
        return Piece(self.a * k, self.b * k, low, high)

    def moved(self, k: float | Reals) -> Piece:
        """Plus ``k``."""
        return Piece(self.a, self.b + k, self.low + k, self.high + k)

    def bounded(self, low: float | Reals, high: float | Reals) -> Piece:
        """Clamped once more."""
        return replace(self, low=np.clip(self.low, low, high), high=np.clip(self.high, low, high))

    def shortened(self) -> Piece:
        """The same with one number where all channels have one."""
        arrays = (self.a, self.b, self.low, self.high)
        return Piece(*(array[:1] if (array == array[0]).all() else array for array in arrays))

    def unclamped(self) -> Piece:
        """The line alone."""
        return replace(self, low=np.array([-np.inf]), high=np.array([np.inf]))


def piece_of_chain(start: Piece, steps: Iterable[tuple[str, Reals | None]], code: CodeType | None, zero: int) -> Piece:
    """A chain's steps and its codes' range, with rounding left out.

    Parameters
    ----------
    start : Piece
        What the chain's first step sees, of the value before.
    steps : iterable of (str, ndarray or None)
    code : CodeType or None
        Of the codes that it makes; the piece's value is ``code - zero``.
    zero : int
    """
    piece = start
    for op, k in steps:
        if k is None:
            continue  # to_float and round
        match op:
            case "mul":
                piece = piece.scaled(k)
            case "div":
                piece = piece.scaled(1.0 / k)
            case "add":
                piece = piece.moved(k)
            case "sub":
                piece = piece.moved(-k)
            case "max":
                piece = piece.bounded(k, np.inf)
            case "min":
                piece = piece.bounded(-np.inf, k)
    return piece if code is None else piece.bounded(code.lo - zero, code.hi - zero)


def piece_of_threshold(thresholds: NDArray[np.int32], direction: NDArray[np.int32], code: CodeType, zero: int) -> Piece:
    """Thresholds as a line: exact on integers for one bit; for two bits the line through the middle threshold, as steep as the outer ones say.

    Parameters
    ----------
    thresholds : int32 ndarray of shape (C, L - 1)
    direction : int32 ndarray of shape (C,)
    code : CodeType
    zero : int
    """
    t = np.sort(thresholds.astype(np.float64) * direction[:, None], axis=1)  # level = how many of t are at most direction * sum
    fixed = (np.abs(t) >= NEVER).all(1)  # channels that do not depend on the sum
    t = np.clip(t, *(sign * (np.where(np.abs(t) < NEVER, np.abs(t), 0.0).max(1, keepdims=True) + 1.0) for sign in (-1, 1)))
    count = t.shape[1]
    span = np.maximum(t[:, -1] - t[:, 0], 1.0)
    slope = (count - 1) / span if count > 1 else np.ones(len(t))  # levels for each step of the sum
    level = (0.5 if count > 1 else 1.0) - slope * t[:, 0]  # at a sum of zero
    step = code.spacing
    lowest, highest = code.lo - zero, code.hi - zero
    always = lowest + step * (t <= 0).sum(1)
    a, b = np.where(fixed, 0.0, slope * direction * step), np.where(fixed, always, lowest + step * level)
    return Piece(a, b, np.array([float(lowest)]), np.array([float(highest)]))
