"""Backward passes that have no derivative, and say so.

PyTorch's own ``once_differentiable`` drops such a part without a word where ``torch.autograd.grad`` is asked for some inputs only, or where the first gradient is a constant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lobit.errors import ConfigError

Backward = Callable[..., tuple[Tensor | None, ...]]


def once(backward: Backward) -> Backward:
    """A ``backward`` that is not differentiated again: with ``create_graph=True`` it raises ConfigError before it computes anything.

    It is for steps that `torch.func` does not reach, as they keep nothing of their inputs that a derivative could flow back through.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ConfigError(
                "create_graph=True asks for the derivative of a gradient that a quantized layer forms in one operation from its codes; leave it out, or take "
                "gradients of gradients by torch.func.grad, for which layers compute operator by operator"
            )
        return backward(ctx, *grads)

    return checked


class _Refused(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, why: str, *of: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.why = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise ConfigError(ctx.why)


def without_derivative(values: Tensor, why: str, *of: Tensor) -> Tensor:
    """``values``, computed without gradient from the tensors ``of``: differentiating them raises ConfigError with the words ``why``."""
    return _Refused.apply(values, why, *of) if torch.is_grad_enabled() else values  # type: ignore[no-untyped-call]
