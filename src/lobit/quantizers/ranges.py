"""How a range is chosen for values that were seen: by their ends, by percentiles, or by the least squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers.observer import Sample
from lobit.quantizers.powers import ap2, floor_power

_TINY = 2.0**-30  # no step is smaller


class Grid(NamedTuple):
    """Which values a uniform quantizer can have: ``scale * (code - zero) + offset`` for the codes ``lo .. hi``.

    Attributes
    ----------
    lo, hi : int
        The codes.
    zero : bool
        Whether an integer ``zero`` in lo .. hi is chosen too; real 0 then is a value of the grid.
    offset : bool
        Whether a real ``offset`` is chosen too. Without either, the grid is symmetric: ``scale * code``.
    """

    lo: int
    hi: int
    zero: bool = False
    offset: bool = False


class Fit(NamedTuple):
    """A grid's scale, zero and offset for each row of a sample; float64 Tensors of shape (R,)."""

    scale: Tensor
    zero: Tensor
    offset: Tensor

    def codes(self, values: Tensor, grid: Grid) -> Tensor:
        """Codes of values of shape (R, M), less their zero."""
        zero = self.zero[:, None]
        return (values - self.offset[:, None]).div_(self.scale[:, None]).round_().clamp_(grid.lo - zero, grid.hi - zero)

    def error(self, sample: Sample, grid: Grid) -> Tensor:
        """Sum of squared errors of each row."""
        values = self.codes(sample.values, grid).mul_(self.scale[:, None]).add_(self.offset[:, None])
        return sample.total(values.sub_(sample.values).square_())


def between(low: Tensor, high: Tensor, grid: Grid) -> Fit:
    """The narrowest grid that covers ``low .. high``.

    A symmetric grid has ``scale = max(high / hi, low / lo)``; one with a zero covers real 0 as well, has ``scale = (high - low) / (hi - lo)`` and
    ``zero = round(lo - low / scale)``; one with an offset has the same scale and begins at ``low``.

    Parameters
    ----------
    low, high : float64 Tensor of shape (R,)
    """
    nothing = torch.zeros_like(low)
    if grid.offset:
        scale = ((high - low) / (grid.hi - grid.lo)).clamp(min=_TINY)
        return Fit(scale, nothing, low - scale * grid.lo)
    if grid.zero:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = ((high - low) / (grid.hi - grid.lo)).clamp(min=_TINY)
        return Fit(scale, (grid.lo - low / scale).round().clamp(grid.lo, grid.hi), nothing)
    scale = (high / grid.hi).clamp(min=_TINY)
    return Fit(torch.maximum(scale, low / grid.lo) if grid.lo < 0 else scale, nothing, nothing)


def with_power(fit: Fit, grid: Grid, *, cover: bool = False) -> Fit:
    """A fit whose scale is the nearest power of two, or the next one up to ``cover`` all that it did.

    The range shrinks or grows about real 0, so that an integer zero stays; one with an offset, which may lie anywhere, about its middle.
    """
    scale = ap2(fit.scale)
    if cover:
        below = floor_power(fit.scale)
        scale = torch.where(below < fit.scale, 2 * below, below)
    offset = fit.offset + (fit.scale - scale) * ((grid.lo + grid.hi) / 2) if grid.offset else fit.offset
    return Fit(scale, fit.zero, offset)


class Method(Protocol):
    """Chooses a grid's scale, zero and offset for each row of a sample."""

    @property
    def momentum(self) -> float | None:
        """Of the moving average of ranges that an `Observer` keeps for it; None for the range of all data."""

    def fit(self, sample: Sample, grid: Grid) -> Fit:
        """The choice."""


@dataclass(frozen=True)
class MinMax:
    """The range of all that was seen: nothing is clipped.

    Parameters
    ----------
    momentum : float, optional
        Greater than 0, at most 1: a moving average of the batches' ranges instead, ``low <- (1 - momentum) low + momentum min(batch)`` and so for the
        high end, starting at the first batch. It follows the order of the batches.
    """

    momentum: float | None = None

    def __post_init__(self) -> None:
        if self.momentum is not None and not (isinstance(self.momentum, (int, float)) and 0 < self.momentum <= 1):
            raise ConfigError(f"momentum must be greater than 0 and at most 1, or None for the range of all data, not {self.momentum!r}")

    def fit(self, sample: Sample, grid: Grid) -> Fit:
        """The narrowest grid that covers each row."""
        return between(sample.low, sample.high, grid)


@dataclass(frozen=True)
class Percentile:
    """A range that clips rare values: from the ``100 - percent``-th percentile to the ``percent``-th, of magnitudes where the grid is symmetric.

    The p-th percentile is the least value that at least p percent of all reach from below; of activations it is known to the width of a histogram's bin.

    Parameters
    ----------
    percent : float
        Greater than 50, at most 100.
    """

    percent: float = 99.99
    momentum: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not (isinstance(self.percent, (int, float)) and 50 < self.percent <= 100):
            raise ConfigError(f"percent must be greater than 50 and at most 100, not {self.percent!r}")

    def fit(self, sample: Sample, grid: Grid) -> Fit:
        """The narrowest grid that covers the range between the percentiles of each row."""
        if grid.zero or grid.offset:
            return between(self._at(sample, 100 - self.percent), self._at(sample, self.percent), grid)
        bound = self._at(sample._replace(values=sample.values.abs()), self.percent)
        within = sample._replace(low=sample.low.maximum(-bound), high=sample.high.minimum(bound))
        return between(within.low, within.high, grid)

    @staticmethod
    def _at(sample: Sample, percent: float) -> Tensor:
        values, order = sample.values.sort(dim=1)
        counts = torch.ones_like(values) if sample.counts is None else sample.counts.gather(1, order)
        reached = counts.cumsum(1)
        wanted = (reached[:, -1:] * (percent / 100)).clamp(min=1)
        place = torch.searchsorted(reached, wanted).clamp(max=values.shape[1] - 1)
        return values.gather(1, place)[:, 0]
