"""Sigmoid, hyperbolic tangent and ReLU over an 8-bit grid of pre-activations: 256 float32 values each, the same on every machine."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lobit.quantizers import round_in_range
from lobit.quantizers.tracing import differentiated

Activation = Literal["sigmoid", "tanh", "relu"]
LO, HI = -128, 127
PER_UNIT = 16
"""Codes for one unit: pre-activations have the step 1/16 and the range [-8, 8)."""
ACTIVATIONS: tuple[Activation, ...] = ("sigmoid", "tanh", "relu")
_ENTRIES = HI - LO + 2  # a place for NaN, then one for each code


def _exact(activation: Activation, x: float) -> float:
    if activation == "sigmoid":
        return 1.0 / (1.0 + math.exp(-x))
    return math.tanh(x) if activation == "tanh" else max(x, 0.0)


def first_index(activation: Activation) -> int:
    """What is added to a code to find its value in `table`."""
    return ACTIVATIONS.index(activation) * _ENTRIES + 1 - LO


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # a graph holds it, not how it is made
def table(dtype: torch.dtype, device: torch.device, keep_nan: bool) -> Tensor:
    """The values of all three activations, one after the other; each begins with what a NaN becomes.

    Formed in float64 and rounded to float32 once. No value lies so near the middle of two floats that the last place of a machine's ``exp`` decided.

    Parameters
    ----------
    dtype : torch.dtype
        What the float32 values are held in.
    device : torch.device
    keep_nan : bool
        Whether NaN stays NaN, as training wants it, or is the value of the lowest code, as `lobit`'s definition of codes has it.
    """
    kept = _KEPT.get((dtype, device, keep_nan))
    if kept is not None:
        return kept
    values: list[float] = []
    for activation in ACTIVATIONS:
        row = [_exact(activation, code / PER_UNIT) for code in range(LO, HI + 1)]
        values += [math.nan if keep_nan else row[0], *row]
    with torch.inference_mode(False):
        made = torch.tensor(values, dtype=torch.float64).float().to(device, dtype)
    if type(made) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(made):  # one of a tracer's ends with it
        _KEPT[dtype, device, keep_nan] = made
    return made


_KEPT: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}


class _Lookup(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(codes: Tensor, activation: Activation, values: Tensor) -> Tensor:
        index = codes.nan_to_num(nan=LO - 1.0).add_(first_index(activation)).to(torch.int64)
        return values.index_select(0, index.flatten()).view(codes.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Activation, Tensor], output: Tensor) -> None:
        ctx.activation = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        slope = {"sigmoid": lambda: (1 - y) * y, "tanh": lambda: 1 - y * y, "relu": lambda: y > 0}[ctx.activation]()
        return grad * slope / PER_UNIT, None, None


def on_grid(x: Tensor, activation: Activation, keep_nan: bool = False) -> Tensor:
    """An activation of pre-activations on the grid.

    Forward: ``f(code / 16)`` with ``code = round(clamp(16 x, -128, 127))``, rounded to float32 once. Backward: ``g_x = g * f'(code / 16) * 1[-128 <= 16 x <= 127]``.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    activation : {"sigmoid", "tanh", "relu"}
    keep_nan : bool
        See `table`.

    Examples
    --------
    >>> on_grid(torch.tensor([0.0, 0.03, 0.04, 100.0]), "tanh")
    tensor([0.0000, 0.0000, 0.0624, 1.0000])
    """
    codes = round_in_range(x * PER_UNIT, LO, HI)
    values = table(codes.dtype, codes.device, keep_nan)
    if differentiated(codes):
        return _Lookup.apply(codes, activation, values)  # type: ignore[no-any-return, no-untyped-call]
    return _Lookup.forward(codes, activation, values)
