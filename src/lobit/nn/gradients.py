"""Products whose gradient is quantized on its way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lobit.quantizers import GradientQuantizer

Product = Callable[[Tensor, Tensor], Tensor]


class _Backward(torch.autograd.Function):
    """The identity, whose backward quantizes."""

    @staticmethod
    def forward(y: Tensor, quantizer: GradientQuantizer) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, GradientQuantizer], output: Tensor) -> None:
        ctx.quantizer = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.quantizer(grad).values(), None


def product_with_quantized_gradient(product: Product, x: Tensor, weight: Tensor, quantizer: GradientQuantizer) -> Tensor:
    """``product(x, weight)``, whose gradient is quantized before it makes those of ``x`` and ``weight``."""
    y = product(x, weight)
    return _Backward.apply(y, quantizer) if torch.is_grad_enabled() and y.requires_grad else y  # type: ignore[no-untyped-call]
