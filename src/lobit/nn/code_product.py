"""The product of two computed tensors of codes, as attention has them: what it keeps for the backward pass is the codes, a byte each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lobit.nn.integer_convolution import Integers
from lobit.nn.once import once
from lobit.nn.scaled_product import expanded


class _CodeProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, held: tuple[Integers, Integers]) -> Tensor:
        device = a.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else a.dtype
        ctx.save_for_backward(a.to(held[0].dtype), b.to(held[1].dtype), scale)
        return torch.matmul(a.to(ctx.dtype), b.to(ctx.dtype)).mul_(scale)

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept_a, kept_b, scale = ctx.saved_tensors
        need_a, need_b, need_scale = ctx.needs_input_grad[:3]
        grad = grad.to(ctx.dtype)
        back_a = back_b = back_scale = None
        a = expanded(kept_a, None).to(ctx.dtype) if need_b or need_scale else None
        if need_a or need_scale:
            back_a = torch.matmul(grad, expanded(kept_b, None).to(ctx.dtype).mT)
            if need_scale and a is not None:  # sum_ij g_ij sum_k a_ik b_kj in another order: no sums are kept
                back_scale = torch.sum(back_a * a, dtype=torch.float32).reshape(scale.shape)
            back_a = back_a.mul_(scale) if need_a else None
        if need_b and a is not None:
            back_b = torch.matmul(a.mT, grad).mul_(scale)
        return back_a, back_b, back_scale, None


def code_product(a: Tensor, b: Tensor, scale: Tensor, held: tuple[Integers, Integers]) -> Tensor:
    """``(a @ b) * scale`` of integers, for training.

    Backward, with the gradient g: ``g_a = (g @ b^T) * scale``, ``g_b = (a^T @ g) * scale``, ``g_scale = sum(g * (a @ b))``, formed as ``sum((g @ b^T) * a)``.

    Parameters
    ----------
    a, b : Tensor of shape (.., M, K) and (.., K, N)
        Integers in float32; their other axes are equal.
    scale : float32 Tensor of shape ()
    held : pair of Integers
        Those in ``a`` and ``b``.
    """
    return _CodeProduct.apply(a, b, scale, held)  # type: ignore[no-any-return, no-untyped-call]
