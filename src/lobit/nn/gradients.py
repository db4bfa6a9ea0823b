"""Products whose gradient is quantized on its way back.

``s = product(x, w)`` is linear in both factors, so a gradient ``g`` of ``s`` makes ``g_x = product^T(g, w)`` and ``g_w = product^T(x, g)``. Where ``g`` are codes times a
scale, and x and w are codes, both are sums of products of codes. Nothing of the forward pass changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lobit.nn.once import once, without_derivative
from lobit.quantizers import GradientQuantizer
from lobit.quantizers.tracing import traced

Product = Callable[[Tensor, Tensor], Tensor]


def product_with_quantized_gradient(product: Product, x: Tensor, weight: Tensor, quantizer: GradientQuantizer) -> Tensor:
    """``product(x, weight)``, whose gradient is quantized before it makes those of ``x`` and ``weight``.

    With ``inputs_only`` it makes that of ``x`` alone; ``weight`` gets ``product^T(x, g)`` of the float gradient. The product runs once in either case.

    The backward pass may not be differentiated again: rounding has no derivative.

    Parameters
    ----------
    product : callable
        Linear in each of its arguments, and made of PyTorch's own operations.
    x, weight : Tensor
        Its arguments.
    quantizer : GradientQuantizer
        It is given the gradient of the product.
    """
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return product(x, weight)
    if not quantizer.inputs_only or not weight.requires_grad:
        return _Quantize.apply(product(x, weight), quantizer)  # type: ignore[no-any-return, no-untyped-call]
    if not x.requires_grad:
        return product(x, weight)
    if traced():  # the compiler sees that both are the same, and computes one
        return _Join.apply(product(x, weight.detach()), product(x.detach(), weight), quantizer)  # type: ignore[no-any-return, no-untyped-call]
    return _Apart.apply(x, weight, product, quantizer)  # type: ignore[no-any-return, no-untyped-call]


def with_quantized_gradient(y: Tensor, quantizer: GradientQuantizer) -> Tensor:
    """``y``, whose gradient is quantized before it goes on: for a product of two computed values, which has no weights that ``inputs_only`` could spare."""
    return _Quantize.apply(y, quantizer) if y.requires_grad else y  # type: ignore[no-untyped-call]


def _quantized(grad: Tensor, quantizer: GradientQuantizer) -> Tensor:
    with torch.no_grad():
        values = quantizer(grad).values().to(grad.dtype)
    return without_derivative(
        values,
        "a gradient that a layer quantizes cannot be differentiated: rounding has no derivative; drop create_graph=True, or the layer's gradient_quantizer",
        grad,
    )


class _Quantize(torch.autograd.Function):
    """The identity, whose backward quantizes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, quantizer: GradientQuantizer) -> Tensor:
        return y.detach()  # no view, which may not be changed in place afterwards

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, GradientQuantizer], output: Tensor) -> None:
        ctx.quantizer = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _quantized(grad, ctx.quantizer), None


class _Join(torch.autograd.Function):
    """Of two equal tensors the first; backward hands it the quantized gradient, and the second the float one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, _same: Tensor, quantizer: GradientQuantizer) -> Tensor:
        return y.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, GradientQuantizer], output: Tensor) -> None:
        ctx.quantizer = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return _quantized(grad, ctx.quantizer), grad, None


class _Apart(torch.autograd.Function):
    """The product, recorded once in a graph of its own, through which backward goes twice: with the quantized gradient to x, with the float one to the weight.

    What is saved are the ends of that graph, tensors without memory of their own. So the graph lives, and holds what the product saved, exactly as long as the
    engine keeps saved tensors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: Product, quantizer: GradientQuantizer) -> Tensor:
        with torch.enable_grad():
            ends = [_nothing(x).requires_grad_(), _nothing(weight).requires_grad_()]
            y = product(_with_end(x.detach(), ends[0]), _with_end(weight.detach(), ends[1]))
            ctx.save_for_backward(_with_end(_nothing(y), y), *ends)
        ctx.quantizer = quantizer
        return y.detach()

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y, x, weight = ctx.saved_tensors
        (of_x,) = torch.autograd.grad(y, x, _quantized(grad, ctx.quantizer), retain_graph=True)
        (of_weight,) = torch.autograd.grad(y, weight, grad, retain_graph=True)
        return of_x, of_weight, None, None


class _Edge(torch.autograd.Function):
    @staticmethod
    def forward(end: Tensor, data: Tensor) -> Tensor:
        return data.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is saved."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _with_end(data: Tensor, end: Tensor) -> Tensor:
    """``data``, whose gradient goes to ``end``, a tensor of its shape."""
    return _Edge.apply(end, data)  # type: ignore[no-any-return, no-untyped-call]


def _nothing(like: Tensor) -> Tensor:
    """A tensor of this shape with the memory of one value."""
    return like.new_empty(()).expand(like.shape)
