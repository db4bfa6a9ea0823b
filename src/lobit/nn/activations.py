"""The activation with a learned kink and slope, in a few exact steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ShapeError


class RPReLU(nn.Module):
    """A PReLU whose kink is moved, for each channel, as ReActNet has it.

    Forward, with ``v = x - gamma_c``: ``max(v, 0) + beta_c * min(v, 0) + zeta_c``: a float32 subtraction, a product where v < 0, a sum, each rounded once.
    Backward, with ``s = 1 if v > 0 else beta_c``: ``g_x = s g``, ``g_gamma = -sum(s g)``, ``g_beta = sum(min(v, 0) g)``, ``g_zeta = sum(g)``, sums over all but channels.

    Parameters
    ----------
    channels : int
        Of the second axis of the input.
    init : float
        Where ``beta`` starts; ``gamma`` and ``zeta`` start at 0, so that it starts as a PReLU.
    **kwargs
        ``device`` and ``dtype``.

    References
    ----------
    Liu et al., ReActNet, arXiv 2003.03488, equation 4.

    Examples
    --------
    >>> RPReLU(3)(torch.randn(2, 3, 5, 5)).shape
    torch.Size([2, 3, 5, 5])
    """

    def __init__(self, channels: int, init: float = 0.25, **kwargs: Any) -> None:
        super().__init__()
        self.channels = channels
        self.gamma = nn.Parameter(torch.zeros(channels, **kwargs))
        self.beta = nn.Parameter(torch.full((channels,), init, **kwargs))
        self.zeta = nn.Parameter(torch.zeros(channels, **kwargs))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Map a tensor of shape (N, channels, ..) to one of the same shape, in its dtype."""
        if input.ndim < 2 or input.shape[1] != self.channels:
            raise ShapeError(f"a RPReLU of {self.channels} channels takes (N, {self.channels}, ..), not {tuple(input.shape)}")
        gamma, beta, zeta = (factor.to(input.dtype) for factor in (self.gamma, self.beta, self.zeta))
        shape = (-1, *[1] * (input.ndim - 2))
        return F.prelu(input - gamma.view(shape), beta) + zeta.view(shape)

    def extra_repr(self) -> str:
        """The channels, for printing."""
        return str(self.channels)
