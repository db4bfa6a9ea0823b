"""One step of each recurrent cell on memory that is there already: forward in place, and its derivative.

Sums come multiplied by 16, so that they are on the grid of `lobit.nn.tables` but for the rounding; the factor is a power of two and changes no bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lobit.nn.recurrence import Kind, Steps
from lobit.nn.tables import HI, LO, PER_UNIT, Activation, first_index, table
from lobit.quantizers import fused

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
GATE_ACTIVATIONS: dict[Kind, tuple[Activation, ...]] = {
    "tanh": ("tanh",),
    "relu": ("relu",),
    "lstm": ("sigmoid", "sigmoid", "tanh", "sigmoid"),
    "gru": ("sigmoid", "sigmoid"),
}
"""The activations of the gates that are read from the table at once."""


class _Room(NamedTuple):
    """Where activations of one width are made: what leads from a code to its place in the table, clamped values, indices."""

    first: Tensor
    clamped: Tensor
    place: Tensor


class Memory:
    """Buffers of a whole pass over N rows of H units; what the backward pass needs is kept for all rows if it is ``kept``.

    Attributes
    ----------
    gates : Tensor of shape (N, G * H)
        The inputs' sums, then what the gates are.
    inside : bool Tensor of shape (N, G * H)
        Which pre-activations were inside the grid's range.
    new, new_inside : Tensors of shape (N, H)
        "lstm": ``tanh(c)``. "gru": ``b + bias_n`` times 16, and of the new gate what is inside.
    cells : Tensor of shape (N, H)
        "lstm": the cell state before each step.
    """

    def __init__(self, steps: Steps, gates: Tensor, like: Tensor, batch: int, units: int, kept: bool) -> None:
        rows, kind = len(gates), steps.kind
        self.gates, self.units, self.kept = gates, units, kept
        self.values = table(like.dtype, like.device, steps.keep_nan)
        self.inside = like.new_empty((rows, gates.shape[1]) if kept else (0,), dtype=torch.bool)
        many = kept and kind in ("lstm", "gru")
        self.new = like.new_empty((rows if many else batch, units))
        self.new_inside = like.new_empty((rows if many and kind == "lstm" else 0, units), dtype=torch.bool)
        self.cells = like.new_empty((rows if kept and kind == "lstm" else 0, units))
        self.small = like.new_empty((batch, units))
        self.native = kind == "lstm" and fused.steps_usable(gates, self.values)
        self.places = tuple(self.values[first_index(name) + LO - 1 :].data_ptr() for name in ("sigmoid", "tanh")) if self.native else (0, 0)
        first = [float(first_index(activation)) for activation in GATE_ACTIVATIONS[kind] for _ in range(units)]
        self.gate_room = self._room(like.new_tensor(first), batch)
        self.unit_room = self._room(like.new_full((units,), float(first_index("tanh"))), batch)

    def _room(self, first: Tensor, batch: int) -> _Room:
        shape = (batch, len(first))
        return _Room(first, first.new_empty(shape), first.new_empty(shape, dtype=torch.int64))

    def activate(self, v: Tensor, room: _Room, inside: Tensor | None) -> Tensor:
        """The activations of ``v``: in ``v`` itself where it is contiguous, else in the room, until that is used again."""
        size = len(v)
        clamped, index = room.clamped[:size], room.place[:size]
        torch.clamp(v, LO, HI, out=clamped)
        if inside is not None:
            torch.eq(clamped, v, out=inside)
        clamped.round_().nan_to_num_(nan=LO - 1.0).add_(room.first)
        index.copy_(clamped)
        out = v if v.is_contiguous() else clamped
        torch.index_select(self.values, 0, index.view(-1), out=out.view(-1))
        return out

    def lstm(self, here: slice, b: Tensor, c: Tensor, out: Tensor) -> None:
        """The LSTM's step: ``c`` becomes the next cell state, ``out`` the hidden state."""
        size = len(b)
        gates = self.gates[here]
        if self.native:
            new, kept = self.new[:size], None
            if self.kept:
                new, kept = self.new[here], (self.inside[here], self.new_inside[here], self.cells[here])
            fused.lstm_step(b, gates, c, new, out, self.places, kept)
            return
        gates.add_(b)
        i, f, g, o = self.activate(gates, self.gate_room, self.inside[here] if self.kept else None).chunk(4, 1)
        if self.kept:
            self.cells[here].copy_(c)
        c.mul_(f).add_(torch.mul(i, g, out=self.small[:size]))
        new = self.new[here] if self.kept else self.new[:size]
        torch.mul(c, PER_UNIT, out=new)
        torch.mul(o, self.activate(new, self.unit_room, self.new_inside[here] if self.kept else None), out=out)

    def gru(self, here: slice, b: Tensor, bias_n: Tensor | None, h: Tensor, out: Tensor) -> None:
        """The GRU's step from state ``h``; ``out`` becomes the next."""
        size, two, three = len(b), slice(0, 2 * self.units), slice(2 * self.units, None)
        gates = self.gates[here]
        inside = self.inside[here] if self.kept else None
        both = gates[:, two].add_(b[:, two])
        both.copy_(self.activate(both, self.gate_room, None if inside is None else inside[:, two]))
        new = self.new[here] if self.kept else self.new[:size]
        torch.add(b[:, three], 0.0 if bias_n is None else bias_n, out=new)
        r, z, n = gates.chunk(3, 1)
        n.add_(torch.mul(r, new, out=self.small[:size]))
        n.copy_(self.activate(n, self.unit_room, None if inside is None else inside[:, three]))
        torch.sub(h, n, out=out)
        out.mul_(z).add_(n)

    def plain(self, here: slice, b: Tensor, out: Tensor) -> None:
        """The step of a plain cell, tanh or ReLU."""
        gates = self.gates[here]
        gates.add_(b)
        out.copy_(self.activate(gates, self.gate_room, self.inside[here] if self.kept else None))


def lstm_backward(
    dh: Tensor, dc: Tensor, gates: Tensor, inside: Tensor, new: Tensor, new_inside: Tensor, cells: Tensor, out: Tensor
) -> None:
    """Gradient of the pre-activations of one step into ``out``; ``dc``, that of the cell state behind the step, becomes that before it, ``dh`` is used up."""
    if fused.steps_usable(dh, dc, gates, new, cells, out):
        fused.lstm_step_back(dh, dc, gates, inside, new, new_inside, cells, out)
        return
    i, f, g, o = gates.chunk(4, 1)
    di, df, dg, do = out.chunk(4, 1)
    units = dh.shape[1]
    torch.mul(dh, new, out=do)
    dh.mul_(o)
    _tanh_backward(dh, new, grad_input=dh)
    dc.add_(dh.mul_(new_inside))
    torch.mul(dc, g, out=di)
    torch.mul(dc, cells, out=df)
    torch.mul(dc, i, out=dg)
    dc.mul_(f)
    both = out[:, : 2 * units]
    _sigmoid_backward(both, gates[:, : 2 * units], grad_input=both)
    _sigmoid_backward(do, o, grad_input=do)
    _tanh_backward(dg, g, grad_input=dg)
    out.mul_(inside)


def gru_backward(dh: Tensor, gates: Tensor, inside: Tensor, new: Tensor, h: Tensor, out: Tensor, hidden_out: Tensor) -> None:
    """Gradient of the inputs' side into ``out``, of the hidden sums' side into ``hidden_out``; ``dh`` becomes what goes straight to the state before."""
    r, z, n = gates.chunk(3, 1)
    dr, dz, dn = out.chunk(3, 1)
    units = dh.shape[1]
    torch.sub(h, n, out=dz)
    dz.mul_(dh)
    torch.mul(dh, z, out=dr)
    torch.sub(dh, dr, out=dn)
    dh.copy_(dr)
    _tanh_backward(dn, n, grad_input=dn)
    dn.mul_(inside[:, 2 * units :])
    torch.mul(dn, new, out=dr).mul_(1.0 / PER_UNIT)
    both = out[:, : 2 * units]
    _sigmoid_backward(both, gates[:, : 2 * units], grad_input=both)
    both.mul_(inside[:, : 2 * units])
    hidden_out[:, : 2 * units] = both
    torch.mul(dn, r, out=hidden_out[:, 2 * units :])


def plain_backward(dh: Tensor, kind: Kind, gates: Tensor, inside: Tensor, out: Tensor) -> None:
    """Gradient of the pre-activations of a plain cell into ``out``."""
    if kind == "tanh":
        _tanh_backward(dh, gates, grad_input=out)
    else:
        torch.mul(dh, gates > 0, out=out)
    out.mul_(inside)
