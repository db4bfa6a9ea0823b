"""A product of codes times its scale as one step of training: what it keeps is the codes, a byte each or a bit, and its backward scales weights and not activations.

With the integer sum ``s = product(x, w)``, ``y = s * scale + bias`` and the gradient g of y, each of output channel o:

    g_x = product^T(g, w * scale)        the scale goes into the weights, which are few
    r   = what g and x make of w         PyTorch's own weight gradient
    g_w = r * scale
    g_scale_o = sum_k r_ok * w_ok        for sum_p g_op * s_op is the same sum in another order: neither sums nor outputs are kept
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lobit.nn.integer_convolution import Convolution, Integers, integer_convolution, scale_
from lobit.nn.once import once
from lobit.quantizers import fused


class Tangent(NamedTuple):
    """What the gradient of an input's one parameter needs, where the input itself has none: the parameter, and ``d x / d parameter`` of x's shape."""

    parameter: Tensor
    slope: Tensor


Map = Convolution | Literal["linear"]
"""A convolution, or `torch.nn.functional.linear`."""


class _ScaledProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        parameter: Tensor | None,
        slope: Tensor | None,
        how: Map,
        held: tuple[Integers, Integers],
    ) -> Tensor:
        device = x.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        ctx.how, ctx.dtype = how, autocast or x.dtype
        rows, sound = _bytes_of(weight, held[1])
        ctx.bits = (x.shape, x.stride()) if held[0].signs and fused.usable(x) else None
        codes = fused.inside(x, 0.0, math.inf) if ctx.bits else x.to(held[0].dtype)
        y = integer_convolution(x, weight, rows, scale, bias, how, held) if how != "linear" and sound else None
        if y is None:
            of_x, of_weight = x.to(ctx.dtype), weight.to(ctx.dtype)
            y = F.linear(of_x, of_weight) if how == "linear" else _convolution(of_x, of_weight, how)
            scale_(y, scale, bias, 1 if how == "linear" else x.ndim - 1)
        ctx.save_for_backward(codes, rows, scale, slope)
        return y.to(ctx.dtype)

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept_x, kept_weight, scale, slope = ctx.saved_tensors
        need_x, need_weight, need_scale, need_bias, need_parameter = ctx.needs_input_grad[:5]
        grad = grad.to(ctx.dtype)
        rows = None if scale is None else scale.reshape(-1, *[1] * (kept_weight.ndim - 1))
        weight = expanded(kept_weight, rows).to(ctx.dtype)
        x = (fused.signs(kept_x, *ctx.bits) if ctx.bits else expanded(kept_x, None)).to(ctx.dtype)
        back_x, raw = _backward(ctx.how, grad, x, weight, need_x, need_weight or need_scale)
        back_weight = back_scale = back_parameter = None
        if raw is not None:
            back_weight, sums = weight_gradient(raw.float(), kept_weight, rows, need_scale)
            back_scale = None if scale is None or sums is None else sums.reshape(scale.shape)
        others = [axis for axis in range(grad.ndim) if axis != (grad.ndim - 1 if ctx.how == "linear" else 1)]
        bias = (grad.float().sum(others) if others else grad.float()) if need_bias else None  # no axis would mean all
        if need_parameter:
            back_parameter = _convolution(slope.to(ctx.dtype), weight, ctx.how).mul_(grad).sum(dtype=torch.float32)
        return back_x, back_weight, back_scale, bias, back_parameter, None, None, None


def _bytes_of(weight: Tensor, of_weight: Integers) -> tuple[Tensor, bool]:
    """Weight codes as they are kept, and whether they are known to be the integers that they should be."""
    if of_weight.dtype in (torch.int8, torch.uint8) and fused.native(weight):
        codes = fused.to_bytes(weight, of_weight.lo, of_weight.hi, of_weight.dtype)
        if codes is not None:
            return codes, True
    return weight.to(of_weight.dtype), False


def expanded(codes: Tensor, scale: Tensor | None) -> Tensor:
    """Kept codes as float32, times their scale."""
    if codes.device.type == "cpu" and codes.dtype in (torch.int8, torch.uint8) and fused.dense(codes) and fused.rows_of(codes, scale):
        return fused.expand(codes, scale)
    return codes.float() if scale is None else codes * scale


def weight_gradient(raw: Tensor, codes: Tensor, scale: Tensor | None, need_scale: bool) -> tuple[Tensor, Tensor | None]:
    """``raw * scale``, and where they are asked for the sums of ``raw * codes`` of each scale; ``raw`` is overwritten."""
    if scale is None:
        return raw, None
    if need_scale and fused.expandable(codes, raw) and fused.rows_of(codes, scale):
        return raw, fused.scale_back_(raw, codes, scale)
    sums = (raw * codes).flatten(1).sum(1) if need_scale else None
    if sums is not None and scale.numel() == 1:
        sums = sums.sum()
    return raw.mul_(scale), sums


def swapped(weight: Tensor, groups: int) -> Tensor:
    """``(O, I / groups, ..)`` as ``(I, O / groups, ..)``, where transposed convolutions have their weights, and back: channels change places in each group."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _convolution(x: Tensor, weight: Tensor, how: Convolution) -> Tensor:
    weight = swapped(weight, how.groups) if how.transposed else weight
    return torch.ops.aten.convolution(  # type: ignore[no-any-return]
        x, weight, None, how.stride, how.padding, how.dilation, how.transposed, how.output_padding, how.groups
    )


def _backward(how: Map, grad: Tensor, x: Tensor, weight: Tensor, need_x: bool, need_weight: bool) -> tuple[Tensor | None, Tensor | None]:
    if how != "linear":
        needs = [need_x, need_weight, False]
        weight = swapped(weight, how.groups) if how.transposed else weight
        found = torch.ops.aten.convolution_backward(
            grad, x, weight, None, how.stride, how.padding, how.dilation, how.transposed, how.output_padding, how.groups, needs
        )
        return found[0], swapped(found[1], how.groups) if how.transposed and need_weight else found[1]
    back_x = grad @ weight if need_x else None
    return back_x, grad.reshape(-1, grad.shape[-1]).T @ x.reshape(-1, x.shape[-1]) if need_weight else None


def scaled_product(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    how: Map,
    held: tuple[Integers, Integers],
    tangent: Tangent | None = None,
) -> Tensor:
    """``product(x, weight) * scale + bias`` of codes, for training.

    Parameters
    ----------
    x : Tensor of shape (N, I, ..), or (.., I) for a linear map
        Integers.
    weight : Tensor of shape (O, I / groups, ..)
        Integers.
    scale : float32 Tensor of shape () or of O values
    bias : float32 Tensor of shape (O,), optional
    how : Convolution or "linear"
    held : pair of Integers
        Those in ``x`` and ``weight``, which the backward pass keeps as bytes, or bits where they are signs.
    tangent : Tangent, optional
        Of a convolution's ``x``, through which the gradient of its parameter comes; ``x`` has then none of its own. One forward product takes
        the place of ``product^T(g, w)``: the parameter's gradient is a number, and that of an image would be asked for nothing else.
    """
    if scale.device.type == "cpu" and not scale.requires_grad and scale.numel() == 1 and scale.item() == 1.0:
        scale = None  # type: ignore[assignment]  # a pass over the output that would change nothing
    parameter, slope = (None, None) if tangent is None else tangent
    x = x if tangent is None else x.detach()
    return _ScaledProduct.apply(x, weight, scale, bias, parameter, slope, how, held)  # type: ignore[no-any-return, no-untyped-call]
