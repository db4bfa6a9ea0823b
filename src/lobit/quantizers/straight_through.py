"""The functions that every quantizer stands on: integers forward, a pseudo-gradient backward.

Each has a definition in PyTorch's operators, which runs on any device and traces, and on the CPU one native pass over memory (`fused`) with the same results.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lobit.quantizers import fused
from lobit.quantizers.tracing import differentiated


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, codes: Tensor, mask: Tensor | None, slope: Tensor | None) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])
        ctx.layout = inputs[0].shape, inputs[0].stride()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        mask, slope = ctx.saved_tensors
        if slope is not None:
            grad = grad * slope
        if mask is not None:
            packed = mask.dtype == torch.uint8
            if packed and torch.is_grad_enabled():  # this pass is to be differentiated itself, which native loops are not
                mask = fused.masked(torch.empty_strided(*ctx.layout).fill_(1), mask) != 0
                packed = False
            grad = fused.masked(_laid_out(grad, *ctx.layout), mask) if packed else torch.where(mask, grad, 0)
        return grad, None, None, None


def _laid_out(grad: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """A gradient in the order of memory of what it belongs to."""
    return grad if grad.stride() == stride else torch.empty_strided(shape, stride, dtype=grad.dtype).copy_(grad)


def straight_through(x: Tensor, codes: Tensor, lo: float = -math.inf, hi: float = math.inf, slope: Tensor | None = None) -> Tensor:
    """``codes``, with the gradient of a straight line in ``x``.

    Forward: ``codes``. Backward: ``g_x = g * slope * 1[lo <= x <= hi]``. The backward keeps the mask, one bit a value on the CPU, and no float of x's size.

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
    if not differentiated(x):
        return codes
    mask = None
    if lo != -math.inf or hi != math.inf:
        mask = fused.inside(x, lo, hi) if fused.usable(x) else (x >= lo) & (x <= hi)
    return _StraightThrough.apply(x, codes, mask, slope)  # type: ignore[no-any-return, no-untyped-call]


def round_in_range(v: Tensor, lo: int, hi: int, *, clip: bool = True) -> Tensor:
    """Round to the integers lo .. hi, half to even.

    Forward: ``round(clamp(v, lo, hi))``. Backward: ``g_v = g * 1[lo <= v <= hi]``, or ``g`` everywhere without ``clip``.
    """
    codes = fused.round_codes(v, None, lo, hi) if fused.usable(v) else v.detach().clamp(lo, hi).round_()
    return straight_through(v, codes, lo, hi) if clip else straight_through(v, codes)


class _RoundByStep(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, lo: int, hi: int) -> Tensor:
        if fused.usable(x) and fused.rows_of(x, step):
            return fused.round_codes(x, step, lo, hi)
        return (x / step).clamp(lo, hi).round_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.range = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, step = ctx.saved_tensors
        lo, hi = ctx.range
        if fused.usable(x) and fused.rows_of(x, step) and grad.dtype == x.dtype and not torch.is_grad_enabled():
            back, sums = fused.round_back(x, _laid_out(grad, x.shape, x.stride()), step, lo, hi)
        else:
            v = x / step
            inside = (v >= lo) & (v <= hi)
            kept = torch.where(inside, grad, 0)
            back, sums = kept / step, (kept * torch.where(inside, v, 0)).sum_to_size(step.shape)  # no 0 times infinity
        return back, -sums / step, None, None


def round_by_step(x: Tensor, step: Tensor, lo: int, hi: int) -> Tensor:
    """Round the steps in ``x`` to the integers lo .. hi, half to even; differentiable in both.

    Forward: ``round(clamp(v, lo, hi))`` with ``v = x / step``. Backward: the rounding is straight through inside the range, the division is a division:
    ``g_x = (g / step) * 1[lo <= v <= hi]``, ``g_step = -sum(g * v * 1[lo <= v <= hi]) / step``. The backward keeps ``x``, which most layers before it keep
    too, and nothing else.

    Parameters
    ----------
    step : Tensor
        Positive; of shape ``()``, or ``(O, 1, ..)`` with one for each output channel.
    """
    if not differentiated(x, step):
        return _RoundByStep.forward(x, step, lo, hi)
    return _RoundByStep.apply(x, step, lo, hi)  # type: ignore[no-any-return, no-untyped-call]


@torch.no_grad()
def slope_by_step(x: Tensor, step: Tensor, lo: int, hi: int) -> Tensor:
    """``d round_by_step / d step`` as its backward has it: ``-(v / step) * 1[lo <= v <= hi]``, ``v = x / step``, of one step for all."""
    if fused.usable(x) and fused.rows_of(x, step):
        return fused.round_back(x, x, step, lo, hi)[0].div_(-step)
    v = x / step
    return torch.where((v >= lo) & (v <= hi), v, 0).div_(-step)
