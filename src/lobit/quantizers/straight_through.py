"""The two functions that every quantizer stands on: integers forward, a pseudo-gradient backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, codes: Tensor, mask: Tensor | None, slope: Tensor | None) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        mask, slope = ctx.saved_tensors
        if slope is not None:
            grad = grad * slope
        if mask is not None:
            grad = grad * mask
        return grad, None, None, None


def straight_through(x: Tensor, codes: Tensor, lo: float = -math.inf, hi: float = math.inf, slope: Tensor | None = None) -> Tensor:
    """``codes``, with the gradient of a straight line in ``x``.

    Forward: ``codes``. Backward: ``g_x = g * slope * 1[lo <= x <= hi]``. The backward keeps the mask as booleans, and no float of x's size.

    Parameters
    ----------
    x, codes : Tensor
        Of one shape; ``codes`` need not be computed differentiably.
    lo, hi : float
        The window; without it the gradient passes everywhere.
    slope : Tensor, optional
        Broadcastable to ``x``; 1 by default.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 2.3.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return codes
    mask = None if lo == -math.inf and hi == math.inf else (x >= lo) & (x <= hi)
    return _StraightThrough.apply(x, codes, mask, slope)  # type: ignore[no-any-return, no-untyped-call]


def round_in_range(v: Tensor, lo: int, hi: int, *, clip: bool = True) -> Tensor:
    """Round to the integers lo .. hi, half to even.

    Forward: ``round(clamp(v, lo, hi))``. Backward: ``g_v = g * 1[lo <= v <= hi]``, or ``g`` everywhere without ``clip``.
    """
    codes = v.detach().clamp(lo, hi).round_()
    return straight_through(v, codes, lo, hi) if clip else straight_through(v, codes)
