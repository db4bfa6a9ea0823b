"""What a recurrent layer computes in one direction of time, step by step: the definition, and the path of any quantizer and any device.

`lobit.nn.bptt` computes the same bits with preallocated memory and a backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lobit.nn.gradients import product_with_quantized_gradient
from lobit.nn.tables import on_grid
from lobit.quantizers import ActivationQuantizer, GradientQuantizer, Quantized
from lobit.quantizers.base import wide

Kind = Literal["tanh", "relu", "lstm", "gru"]
GATES: dict[Kind, int] = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True, slots=True)
class Steps:
    """How one direction of a layer walks through time.

    Attributes
    ----------
    kind : {"tanh", "relu", "lstm", "gru"}
    sizes : tuple of int
        Sequences that are alive at each step of time, never more than at the step before; all the same where nothing is packed.
    reverse : bool
        Whether the last step comes first.
    wide_inputs, wide_hidden : bool
        Whether the two sums are formed in float64, because their bound passes 2^24.
    keep_nan : bool
        See `lobit.nn.tables.table`.
    kept : tuple of torch.dtype or None
        In what inputs, weights and hidden states are kept for the backward pass, where they are codes; as they are where None.
    """

    kind: Kind
    sizes: tuple[int, ...]
    reverse: bool = False
    wide_inputs: bool = False
    wide_hidden: bool = False
    keep_nan: bool = False
    kept: tuple[torch.dtype | None, ...] = (None, None, None)

    def rows(self) -> Iterator[tuple[int, int]]:
        """First row and number of rows of each step, in the order they are walked."""
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        pairs = list(zip(starts, self.sizes, strict=False))
        return iter(pairs[::-1] if self.reverse else pairs)


class Operands(NamedTuple):
    """The tensors of one direction of a layer; N rows are all steps of all sequences, G gates of H units.

    Attributes
    ----------
    x : Tensor of shape (N, I)
        Codes less their zero, or floats where nothing quantizes the input.
    w_ih, w_hh : Tensors of shape (G * H, I) and (G * H, H)
        Codes, or floats.
    s_ih, s_w : Tensors of shape (1,) or (G * H,), or None
        The scale of the inputs' sums, and that of ``w_hh`` alone.
    o_ih : Tensor of shape (G * H,) or None
        What an offset of the input adds to its sums.
    bias, bias_n : Tensors of shape (G * H,) and (H,), or None
        What is added behind that; ``bias_n`` to the hidden sums of the new gate of "gru".
    h0, c0 : Tensors of shape (B, H); ``c0`` None but for "lstm"
    """

    x: Tensor
    w_ih: Tensor
    s_ih: Tensor | None
    w_hh: Tensor
    s_w: Tensor | None
    o_ih: Tensor | None
    bias: Tensor | None
    bias_n: Tensor | None
    h0: Tensor
    c0: Tensor | None


class Result(NamedTuple):
    """Hidden states of all steps, of shape (N, H), and the last states, of shape (B, H)."""

    hidden: Tensor
    h_n: Tensor
    c_n: Tensor | None


def product(x: Tensor, w: Tensor, in_float64: bool) -> Tensor:
    """``x @ w.T``; the sum in float64 where asked for."""
    return (wide(x) @ wide(w).t()).to(x.dtype) if in_float64 else x @ w.t()


def times(scale: Tensor, s_w: Tensor | None) -> Tensor:
    """The scale of sums: that of the activations times that of the weights, of shape (1,) or (G * H,)."""
    return scale.reshape(1) if s_w is None else scale * s_w


def offset_term(offset: Tensor | None, weight: Tensor, s_w: Tensor | None) -> Tensor | None:
    """What a real offset of the activations adds to each sum: ``ones_sum * (offset * s_w)``, of shape (G * H,); None without an offset."""
    return None if offset is None else weight.sum(1) * times(offset, s_w)


def walk(steps: Steps, given: Operands, quantizer: ActivationQuantizer | None, gradients: GradientQuantizer | None = None) -> Result:
    """One direction of a recurrent layer, every operation a differentiable one of PyTorch.

    The inputs' sums of all steps are one product, ``a = sum_x * s_ih + bias``. Then, with ``b = sum_h * s_hh`` at each step (both sums have a third term
    in the middle where their quantizer has an offset: ``ones_sum * (offset * s_w)``):

    - "tanh", "relu": ``h' = f(a + b)``
    - "lstm": ``i, f, g, o`` of ``a + b``; ``c' = f * c + i * g``; ``h' = o * tanh(c')``
    - "gru": ``r, z = sigmoid(a + b)``; ``n = tanh(a + r * (b + bias_n))``; ``h' = (h - n) * z + n``

    in this order, each operation rounded once, every sigmoid, tanh and ReLU by `on_grid`.

    Parameters
    ----------
    steps : Steps
    given : Operands
    quantizer : ActivationQuantizer, optional
        Of the hidden state; it is asked at every step.
    gradients : GradientQuantizer, optional
        For the gradient of the two sums: that of the inputs' once for all steps, that of the hidden ones at each step.
    """
    x, w_ih, s_ih, w_hh, s_w, o_ih, bias, bias_n, h, c = given

    def multiply(left: Tensor, right: Tensor, in_float64: bool) -> Tensor:
        if gradients is None:
            return product(left, right, in_float64)
        return product_with_quantized_gradient(lambda a, b: product(a, b, in_float64), left, right, gradients)

    inputs = multiply(x, w_ih, steps.wide_inputs)
    inputs = inputs if s_ih is None else inputs * s_ih
    inputs = inputs if o_ih is None else inputs + o_ih
    inputs = inputs if bias is None else inputs + bias
    outputs: dict[int, Tensor] = {}
    for start, size in steps.rows():
        before, a = h[:size], inputs[start : start + size]
        quantized = Quantized(before, before.new_ones(())) if quantizer is None else quantizer(before)
        scale = s_w if quantizer is None else times(quantized.scale, s_w)
        offset = offset_term(quantized.offset, w_hh, s_w)
        b = multiply(quantized.centred(), w_hh, steps.wide_hidden)
        b = b if scale is None else b * scale
        b = b if offset is None else b + offset
        new, cell = _cell(steps, a, b, bias_n, before, None if c is None else c[:size])
        outputs[start] = new
        h = new if size == len(h) else torch.cat([new, h[size:]])
        if c is not None and cell is not None:
            c = cell if size == len(c) else torch.cat([cell, c[size:]])
    hidden = torch.cat([outputs[start] for start in sorted(outputs)]) if outputs else inputs.new_zeros(0, w_hh.shape[1])
    return Result(hidden, h, c)


def _cell(steps: Steps, a: Tensor, b: Tensor, bias_n: Tensor | None, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if steps.kind == "lstm":
        assert c is not None
        i, f, g, o = (a + b).chunk(4, 1)
        i, f, o = (on_grid(gate, "sigmoid", steps.keep_nan) for gate in (i, f, o))
        cell = f * c + i * on_grid(g, "tanh", steps.keep_nan)
        return o * on_grid(cell, "tanh", steps.keep_nan), cell
    if steps.kind == "gru":
        units = h.shape[1]
        r, z = on_grid(a[:, : 2 * units] + b[:, : 2 * units], "sigmoid", steps.keep_nan).chunk(2, 1)
        from_hidden = b[:, 2 * units :] if bias_n is None else b[:, 2 * units :] + bias_n
        n = on_grid(a[:, 2 * units :] + r * from_hidden, "tanh", steps.keep_nan)
        return (h - n) * z + n, None
    return on_grid(a + b, "relu" if steps.kind == "relu" else "tanh", steps.keep_nan), None
