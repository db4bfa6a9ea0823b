"""Means, variances and covariance of pairs of numbers, channel by channel, gathered batch by batch in float64."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-12
"""A variance below this share of the mean square is rounding of a channel that does not vary: float32 outputs carry 2^-24, squared 4e-15."""


class Moments:
    """Moments of two quantities ``y`` and ``q`` over everything that was added.

    Batches are merged by the differences of their means, so that a mean far from zero costs no digits:
    ``M = M_a + M_b + n_a n_b / (n_a + n_b) (mean_a - mean_b)^2``.

    Parameters
    ----------
    channels : int

    References
    ----------
    Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean_y, self.mean_q, self._yy, self._qq, self._yq = (torch.zeros(channels, dtype=torch.float64) for _ in range(5))

    def add(self, y: Tensor, q: Tensor) -> None:
        """Add pairs, both of shape (channels, n)."""
        y, q, n = y.double(), q.double(), y.shape[1]
        if not n:
            return
        mean_y, mean_q = y.mean(1), q.mean(1)
        dy, dq = y - mean_y[:, None], q - mean_q[:, None]
        apart_y, apart_q = mean_y - self.mean_y, mean_q - self.mean_q
        total = self.count + n
        weight = self.count * n / total
        self._yy += (dy * dy).sum(1) + weight * apart_y * apart_y
        self._qq += (dq * dq).sum(1) + weight * apart_q * apart_q
        self._yq += (dy * dq).sum(1) + weight * apart_y * apart_q
        self.mean_y += apart_y * (n / total)
        self.mean_q += apart_q * (n / total)
        self.count = total

    @property
    def var_y(self) -> Tensor:
        """Variance of ``y``."""
        return self._yy / max(self.count, 1)

    @property
    def var_q(self) -> Tensor:
        """Variance of ``q``."""
        return self._qq / max(self.count, 1)

    @property
    def varies(self) -> Tensor:
        """Which channels of ``y`` vary by more than rounding."""
        return self.var_y > FLAT * (self.var_y + self.mean_y**2)

    @property
    def unexplained(self) -> Tensor:
        """``1 - r^2``, from 0 to 1: the share of the variance of ``y`` that the best line in ``q`` leaves; 1 where ``q`` does not vary, 0 where ``y`` does not."""
        tells = self.var_q > FLAT * (self.var_q + self.mean_q**2)
        r2 = torch.where(self.varies & tells, self._yq**2 / (self._yy * self._qq).clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        return torch.where(self.varies, (1 - r2).clamp(0.0, 1.0), 0.0)
