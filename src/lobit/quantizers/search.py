"""The grid with the least squared error: a search of ranges, then least squares for the codes that were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lobit.quantizers.observer import Sample
from lobit.quantizers.ranges import Fit, Grid, between

_TINY = 2.0**-30
RATIOS = tuple(2.0 ** (-step / 16) for step in range(-8, 129))
"""Shares of the whole range that are tried where one number is searched: 2^(1/2) to 2^-8 in steps of 2^(1/16)."""
COARSE = tuple(2.0 ** (-step / 4) for step in range(-1, 21))
"""Shares of each side that are tried where two numbers are searched, in all pairs."""
NEAR = tuple(2.0 ** (step / 96) for step in range(-12, 13) if step)
"""Factors of the best scale that are tried after it."""
_ROUNDS = 12  # of least squares; each one can only lower the error
_AT_ONCE = 1 << 18  # values that are tried together: few enough for the processor's cache


@dataclass(frozen=True)
class MeanSquaredError:
    """The range whose grid has the least sum of squared errors ``sum (value - x)^2``.

    Ranges that clip 0 to 99.6 % of the whole range are tried (`RATIOS`; with a zero or an offset both ends, in pairs, `COARSE`), then scales near the best. That one is
    improved by turns: codes for the scale, then the scale (and the offset) of least squares for the codes, ``s = sum c x / sum c^2``, while the error falls. So the result is
    no worse than any range that was tried.
    """

    momentum: ClassVar[None] = None

    def fit(self, sample: Sample, grid: Grid) -> Fit:
        """The best grid found for each row."""
        rows = max(1, _AT_ONCE // max(1, sample.values.shape[1]))
        if rows < len(sample.values):
            parts = zip(*(torch.split(part, rows) for part in (sample.values, sample.low, sample.high)), strict=True)
            fits = [self.fit(Sample(values, None, low, high), grid) for values, low, high in parts]
            return Fit(*(torch.cat(rows_of) for rows_of in zip(*fits, strict=True)))
        best = _best(sample, grid, _candidates(sample, grid))
        best = _best(sample, grid, _around(best, grid))
        for _ in range(_ROUNDS):
            improved = _least_squares(sample, grid, best)
            chosen = _best(sample, grid, (best, improved))
            if all(torch.equal(new, old) for new, old in zip(chosen, best, strict=True)):
                break
            best = chosen
        return best


def _candidates(sample: Sample, grid: Grid) -> Iterator[Fit]:
    yield between(sample.low, sample.high, grid)
    if not (grid.zero or grid.offset):
        for ratio in RATIOS:
            yield between(sample.low * ratio, sample.high * ratio, grid)
        return
    middle = sample.total(sample.values) / sample.size if grid.offset else torch.zeros_like(sample.low)
    one_sided = grid.zero and (bool((sample.low >= 0).all()) or bool((sample.high <= 0).all()))
    pairs = ((ratio, ratio) for ratio in RATIOS) if one_sided else ((a, b) for a in COARSE for b in COARSE)
    for below, above in pairs:
        yield between(middle - (middle - sample.low) * below, middle + (sample.high - middle) * above, grid)


def _around(fit: Fit, grid: Grid) -> Iterator[Fit]:
    """The fit first, then scales near it, and zeros next to its own."""
    yield fit
    for zero in (-1, 0, 1) if grid.zero else (0,):
        for ratio in (*NEAR, 1.0) if zero else NEAR:
            yield fit._replace(scale=(fit.scale * ratio).clamp(min=_TINY), zero=(fit.zero + zero).clamp(grid.lo, grid.hi))


def _best(sample: Sample, grid: Grid, candidates: Iterable[Fit]) -> Fit:
    """For each row the first candidate of least error."""
    best: Fit | None = None
    least = torch.full_like(sample.low, torch.inf)
    for candidate in candidates:
        error = candidate.error(sample, grid)
        better = error < least
        least = torch.where(better, error, least)
        best = candidate if best is None else Fit(*(torch.where(better, new, old) for new, old in zip(candidate, best, strict=True)))
    assert best is not None
    return best


def _least_squares(sample: Sample, grid: Grid, fit: Fit) -> Fit:
    """Scale and offset of least squares for the codes that a fit gives."""
    codes = fit.codes(sample.values, grid)
    if not grid.offset:
        return fit._replace(scale=_ratio(sample.total(codes * sample.values), sample.total(codes.square()), fit.scale))
    size = sample.size
    mean_code, mean = sample.total(codes) / size, sample.total(sample.values) / size
    spread = codes.sub_(mean_code[:, None])
    scale = _ratio(sample.total(spread * (sample.values - mean[:, None])), sample.total(spread.square()), fit.scale)
    return Fit(scale, fit.zero, mean - scale * mean_code)


def _ratio(above: Tensor, below: Tensor, otherwise: Tensor) -> Tensor:
    ratio = above / below
    return torch.where(ratio > _TINY, ratio, otherwise)  # not where no code is other than zero
