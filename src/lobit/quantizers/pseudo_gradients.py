"""What stands in for the derivative of the sign: a window, nothing, or the derivative of a smooth step."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers.straight_through import straight_through
from lobit.quantizers.tracing import differentiated

SignGradient = Literal["clipped", "identity", "approx", "swish"]
SWISH_BETA = 5.0
_FLAT = 80.0  # exp(-80) is a normal float32, and the slope there nothing


class _SmoothStep(torch.autograd.Function):
    """The codes forward; backward the slope of a smooth step at the saved input, which is all that is kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, codes: Tensor, beta: float) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.beta = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grad * (swish_slope(x, ctx.beta) if ctx.beta else approx_slope(x)), None, None


def approx_slope(x: Tensor) -> Tensor:
    """``max(0, 2 - 2 |x|)``, the derivative of two parabolas that meet at 0 and are flat from -1 and 1 on."""
    return (2 - 2 * x.abs()).clamp(min=0)


def swish_slope(x: Tensor, beta: float) -> Tensor:
    """``beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))``, by one exponential that cannot overflow."""
    z = (x * beta).abs_().clamp(max=_FLAT)
    e = torch.exp(-z)
    return (2 - z * (1 - e) / (1 + e)) * (2 * beta) * e / (1 + e).square()


def with_sign_gradient(x: Tensor, codes: Tensor, gradient: SignGradient, beta: float = SWISH_BETA) -> Tensor:
    """``codes``, with the pseudo-gradient of a sign in ``x``: see `lobit.quantizers.sign`.

    ``clipped`` keeps a boolean mask for the backward pass, ``identity`` nothing, ``approx`` and ``swish`` keep ``x``.
    """
    if gradient == "clipped":
        return straight_through(x, codes, -1.0, 1.0)
    if gradient == "identity":
        return straight_through(x, codes)
    if not differentiated(x):
        return codes
    return _SmoothStep.apply(x, codes, beta if gradient == "swish" else 0.0)  # type: ignore[no-any-return, no-untyped-call]


def check_sign_gradient(gradient: SignGradient, beta: float, what: str) -> None:
    """Refuse a gradient that is none of the four, and a steepness that is not positive."""
    if gradient not in get_args(SignGradient):
        raise ConfigError(f"{what} has no gradient {gradient!r}; choose one of {', '.join(get_args(SignGradient))}")
    if not isinstance(beta, int | float) or not 0 < beta <= 1e6:
        raise ConfigError(f"{what} has a steepness beta above 0, up to 1e6, not {beta!r}")
