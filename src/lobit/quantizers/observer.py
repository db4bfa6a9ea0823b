"""What is known of values that passed by: an exact range and a histogram, in memory that does not grow, whatever the order and the batches."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lobit.errors import ConfigError

BINS = 4096
"""Bins on each side of zero; the largest value lies in the outer half of one side."""
_FINEST = -64  # the exponent of the narrowest bin
_AT_ONCE = 1 << 20  # values whose bins are computed together: they take 24 bytes each


class Sample(NamedTuple):
    """Values that a range is chosen for, row by row: weights of each output channel, or one row of the bins of a histogram.

    Attributes
    ----------
    values : float64 Tensor of shape (R, M)
    counts : float64 Tensor of shape (R, M), or None
        How often each value was seen; once where it is None.
    low, high : float64 Tensor of shape (R,)
        The least and the greatest; with a moving average, the averages of those of the batches.
    """

    values: Tensor
    counts: Tensor | None
    low: Tensor
    high: Tensor

    @classmethod
    def of_rows(cls, rows: Tensor) -> Sample:
        """All values of a tensor of shape (R, ..), float64 (float32 on a device that has none)."""
        values = rows.detach().flatten(1)
        values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
        return cls(values, None, *values.aminmax(dim=1))

    def total(self, per_value: Tensor) -> Tensor:
        """The sum of a quantity over the sample, of shape (R,)."""
        return (per_value if self.counts is None else per_value * self.counts).sum(1)

    @property
    def size(self) -> Tensor:
        """How many values each row has."""
        return self.total(torch.ones_like(self.values))

    @property
    def magnitude(self) -> Tensor:
        """The mean magnitude of each row."""
        return self.total(self.values.abs()) / self.size


class Observer:
    """Statistics of all values that were shown to it.

    The histogram has bins of a width that is a power of two, from zero on to both sides. When a value lies beyond the last bin, the width doubles and
    neighbouring bins join. So it depends on the values alone: not on their order, and not on how they were cut into batches. A bin's value is the mean of what fell into it.

    Parameters
    ----------
    momentum : float, optional
        Between 0 and 1: the range becomes a moving average of the batches' ranges, ``low <- (1 - momentum) low + momentum min(batch)``.

    Attributes
    ----------
    count : int
        Values seen.
    lowest, highest : float
        Their exact range.
    """

    def __init__(self, momentum: float | None = None) -> None:
        self.momentum = momentum
        self.count = 0
        self.lowest, self.highest = math.inf, -math.inf
        self.moving: tuple[float, float] | None = None
        self.exponent = _FINEST
        self.counts = torch.zeros(2 * BINS, dtype=torch.float64)
        self.sums = torch.zeros(2 * BINS, dtype=torch.float64)

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2.0**self.exponent

    @property
    def only_zeros(self) -> bool:
        """Whether no value other than 0 was seen."""
        return self.lowest == self.highest == 0

    @torch.no_grad()
    def see(self, x: Tensor, owner: str = "") -> None:
        """Take in a batch of any shape; an empty one changes nothing.

        Raises
        ------
        ConfigError
            Naming ``owner``, when a value is not finite.
        """
        if x.numel() == 0:
            return
        x = x.detach().float().flatten()
        low, high = (float(end) for end in x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(
                f"a batch of {owner or 'a quantizer'} holds values that are not finite; look for NaN in the data or in the layers before it"
            )
        self.count += x.numel()
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        if self.momentum is not None:
            self.moving = (low, high) if self.moving is None else self._moved(self.moving, (low, high))
        self._widen(_exponent(max(-low, high)))
        x = x.cpu() if x.device.type == "mps" else x  # it has no float64
        for part in torch.split(x, _AT_ONCE):
            part = part.double()  # in float32 a small value would lose its sign where the bins are wide
            bins = (part * 2.0**-self.exponent).floor_().to(torch.int64).add_(BINS)
            self.counts += torch.bincount(bins, minlength=2 * BINS).cpu()
            self.sums += torch.bincount(bins, weights=part, minlength=2 * BINS).cpu()

    def _moved(self, average: tuple[float, float], batch: tuple[float, float]) -> tuple[float, float]:
        assert self.momentum is not None
        low, high = ((1 - self.momentum) * old + self.momentum * new for old, new in zip(average, batch, strict=True))
        return low, high

    def _widen(self, exponent: int) -> None:
        """Join bins until they are ``2^exponent`` wide; exact, since the floor of a half is the half of a floor."""
        if exponent <= self.exponent:
            return
        joined = (torch.arange(-BINS, BINS) >> min(exponent - self.exponent, 62)) + BINS
        self.counts = torch.zeros_like(self.counts).index_add_(0, joined, self.counts)
        self.sums = torch.zeros_like(self.sums).index_add_(0, joined, self.sums)
        self.exponent = exponent

    def join_processes(self) -> None:
        """Take in what the other processes of a distributed run have seen; all of them then know the same."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        low, high = self.moving or (math.inf, -math.inf)
        most = torch.tensor([-self.lowest, self.highest, float(self.exponent), -low, high], dtype=torch.float64, device=device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        self.lowest, self.highest = -float(most[0]), float(most[1])
        self._widen(int(most[2]))
        if self.momentum is not None:
            self.moving = (-float(most[3]), float(most[4]))
        both = torch.stack([self.counts, self.sums]).to(device)
        dist.all_reduce(both, dist.ReduceOp.SUM)
        self.counts, self.sums = both.cpu()
        self.count = int(self.counts.sum())

    def sample(self) -> Sample:
        """One row of all bins that hold something."""
        filled = self.counts > 0
        counts = self.counts[filled]
        low, high = self.moving or (self.lowest, self.highest)
        ends = (torch.tensor([end], dtype=torch.float64) for end in (low, high))
        return Sample((self.sums[filled] / counts)[None], counts[None], *ends)


def _exponent(magnitude: float) -> int:
    """The least e with ``magnitude < BINS * 2^e``."""
    return max(math.frexp(magnitude)[1] - BINS.bit_length() + 1, _FINEST) if magnitude else _FINEST
