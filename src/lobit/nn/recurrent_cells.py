"""Recurrent cells: one step of RNN, LSTM and GRU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError
from lobit.nn.recurrence import Kind, Result
from lobit.nn.recurrent_quantizers import AS_INPUT, Place, RecurrentQuantizers
from lobit.quantizers.registry import Identifier


class RecurrentCell(RecurrentQuantizers):
    """Mixed into the cells of torch.nn: `RNNCell`, `LSTMCell` and `GRUCell`."""

    input_size: int
    weight_ih: Tensor

    def places(self) -> list[Place]:
        """One."""
        return [Place("", "input", False)]

    def step(self, x: Tensor, h: Tensor | None, c: Tensor | None) -> Result:
        """One step from x of shape (B, I) or (I,) and states of shape (B, H) or (H,); zeros by default."""
        self.check_dtype(self.weight_ih)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(f"a {type(self).__name__} takes (B, {self.input_size}) or ({self.input_size},), not {tuple(x.shape)}")
        want = (*x.shape[:-1], self.hidden_size)
        for state in (h, c):
            if state is not None and tuple(state.shape) != want:
                raise ShapeError(f"a {type(self).__name__} takes states of shape {want} for this input, not {tuple(state.shape)}")
        dtype = self.weight_ih.dtype
        with torch.autocast(x.device.type, enabled=False):
            rows = self._with_unused(x.to(dtype).reshape(-1, self.input_size))
            size = len(rows)
            zeros = rows.new_zeros(size, self.hidden_size)
            before = zeros if h is None else h.to(dtype).reshape(zeros.shape)
            cell = (zeros if c is None else c.to(dtype).reshape(zeros.shape)) if self.kind == "lstm" else None
            place = self.places()[0]
            result = self.direction(place, rows, self.input_codes(place, rows), before, cell, (size,), False)
        return Result(result.hidden.view(want), result.h_n.view(want), None if result.c_n is None else result.c_n.view(want))


class LSTMCell(RecurrentCell, nn.LSTMCell):
    """`torch.nn.LSTMCell` with quantizers: one step of `lobit.nn.LSTM`; without quantizers it is torch's cell.

    Parameters
    ----------
    input_size, hidden_size, bias
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer
        As `lobit.nn.LSTM`'s.
    **kwargs
        ``device`` and ``dtype``.
    """

    kind: Kind = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        nn.LSTMCell.__init__(self, input_size, hidden_size, bias, **kwargs)
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002  # torch's name
        """The next hidden and cell state."""
        if not self.is_quantized:
            return nn.LSTMCell.forward(self, input, hx)
        result = self.step(input, *(hx or (None, None)))
        assert result.c_n is not None
        return result.hidden, result.c_n


class GRUCell(RecurrentCell, nn.GRUCell):
    """`torch.nn.GRUCell` with quantizers: one step of `lobit.nn.GRU`; without quantizers it is torch's cell.

    Parameters
    ----------
    input_size, hidden_size, bias
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer
        As `lobit.nn.LSTM`'s.
    **kwargs
        ``device`` and ``dtype``.
    """

    kind: Kind = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        nn.GRUCell.__init__(self, input_size, hidden_size, bias, **kwargs)
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002  # torch's name
        """The next state."""
        return self.step(input, hx, None).hidden if self.is_quantized else nn.GRUCell.forward(self, input, hx)


class RNNCell(RecurrentCell, nn.RNNCell):
    """`torch.nn.RNNCell` with quantizers: one step of `lobit.nn.RNN`; without quantizers it is torch's cell.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer
        As `lobit.nn.LSTM`'s.
    **kwargs
        ``device`` and ``dtype``.

    Raises
    ------
    ConfigError
        For another nonlinearity.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"nonlinearity must be 'tanh' or 'relu', not {nonlinearity!r}")
        nn.RNNCell.__init__(self, input_size, hidden_size, bias, nonlinearity, **kwargs)
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)

    @property
    def kind(self) -> Kind:
        """Which cell it is."""
        return "relu" if self.nonlinearity == "relu" else "tanh"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002  # torch's name
        """The next state."""
        return self.step(input, hx, None).hidden if self.is_quantized else nn.RNNCell.forward(self, input, hx)
