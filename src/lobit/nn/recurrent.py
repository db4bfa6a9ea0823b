"""Recurrent layers: torch.nn's RNN, LSTM and GRU with quantized weights, inputs, hidden states and gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lobit.errors import ConfigError, ShapeError
from lobit.nn.recurrence import Kind
from lobit.nn.recurrent_quantizers import AS_INPUT, Place, RecurrentQuantizers
from lobit.quantizers.registry import Identifier

KINDS: dict[str, Kind] = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "LSTM": "lstm", "GRU": "gru"}
State = Any
"""A tensor, or for LSTM a pair of them."""


class RecurrentLayer(RecurrentQuantizers, nn.RNNBase):
    """Base of `RNN`, `LSTM` and `GRU`; see there. It is a layer of torch.nn with one more thing: quantizers.

    It is no subclass of torch.nn.LSTM and the like, because ``torch.compile`` refuses those.
    """

    torch_class: ClassVar[type[nn.RNNBase]]
    weight_ih_l0: Tensor
    weight_hh_l0: Tensor

    @property
    def kind(self) -> Kind:
        """Which cell it has."""
        return KINDS[self.mode]

    def places(self) -> list[Place]:
        """Its layers and directions, in the order of torch's states."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [Place(f"_l{layer}{end}", f"input_l{layer}", layer > 0) for layer in range(self.num_layers) for end in ends]

    def set_quantizers(
        self,
        weight_quantizer: Identifier,
        input_quantizer: Identifier,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
    ) -> None:
        """Attach quantizers, see `lobit.nn.LSTM`; None leaves that side in float.

        Raises
        ------
        ConfigError
            For a quantizer together with ``proj_size``.
        """
        hidden = None if hidden_quantizer == AS_INPUT else hidden_quantizer
        if self.proj_size and any(given is not None for given in (weight_quantizer, input_quantizer, gradient_quantizer, hidden)):
            raise ConfigError(
                f"a quantized LSTM has no projection, proj_size must be 0, not {self.proj_size}; put a lobit.nn.Linear behind it"
            )
        super().set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)

    def forward(self, input: Tensor | PackedSequence, hx: State = None) -> tuple[Any, State]:  # noqa: A002  # torch's name, for calls by keyword
        """Map a batch of sequences to the hidden states of all steps and the last states; arguments and results are torch's.

        Parameters
        ----------
        input : Tensor of shape (T, B, I), (B, T, I) with ``batch_first``, (T, I) without a batch, or PackedSequence
        hx : Tensor of shape (layers * directions, B, H), or without a batch (layers * directions, H); for LSTM a pair of them
            Zeros by default.

        Raises
        ------
        ShapeError
            For other shapes.
        ConfigError
            For weights of 16 bits.
        """
        if not self.is_quantized:
            return self.torch_class.forward(self, input, hx)  # type: ignore[no-any-return]
        self.check_dtype(self.weight_ih_l0)
        if isinstance(input, PackedSequence):
            rows, sizes = input.data, tuple(int(size) for size in input.batch_sizes)
            if rows.shape[1:] != (self.input_size,):
                raise ShapeError(
                    f"a {type(self).__name__} takes packed sequences of {self.input_size} inputs a step, not of {tuple(rows.shape[1:])}"
                )
            batched, batch = True, sizes[0]
        else:
            self._check_input(input)
            batched = input.ndim == 3
            steps = input if batched else input.unsqueeze(1)
            steps = steps.transpose(0, 1) if batched and self.batch_first else steps
            batch = steps.shape[1]
            rows, sizes = steps.reshape(-1, self.input_size), (batch,) * steps.shape[0]
        h, c = self._first_states(input, hx, batch, batched)
        with torch.autocast(rows.device.type, enabled=False):
            hidden, last = self._layers(self._with_unused(rows.to(self.weight_ih_l0.dtype)), h, c, sizes)
        states = [torch.stack(parts) for parts in zip(*last, strict=True)]
        if isinstance(input, PackedSequence):
            if input.unsorted_indices is not None:
                states = [state.index_select(1, input.unsorted_indices) for state in states]
            output: Any = PackedSequence(hidden, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        else:
            output = hidden.view(len(sizes), batch, hidden.shape[1])
            output = output.transpose(0, 1) if batched and self.batch_first else output
            if not batched:
                output, states = output.squeeze(1), [state.squeeze(1) for state in states]
        return output, tuple(states) if self.kind == "lstm" else states[0]

    def _check_input(self, x: Tensor) -> None:
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or not x.shape[0 if x.ndim == 2 or not self.batch_first else 1]:
            batched = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ShapeError(
                f"a {type(self).__name__} takes {batched} or (T, I), with at least one step and I = {self.input_size}, not {tuple(x.shape)}"
            )

    def _first_states(self, given: Any, hx: State, batch: int, batched: bool) -> tuple[list[Tensor], list[Tensor | None]]:
        """The first states of each layer and direction, of shape (B, H), sorted like a packed input."""
        number, lstm = len(self.places()), self.kind == "lstm"
        if hx is None:
            zeros = self.weight_hh_l0.new_zeros(batch, self.hidden_size)
            return [zeros] * number, [zeros if lstm else None] * number
        want = (number, batch, self.hidden_size) if batched else (number, self.hidden_size)
        states = list(hx) if lstm and isinstance(hx, (tuple, list)) else [hx]
        if len(states) != 1 + lstm or any(not isinstance(state, Tensor) or tuple(state.shape) != want for state in states):
            got = [tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__ for state in states]
            what = "a pair of states" if lstm else "a state"
            raise ShapeError(f"a {type(self).__name__} takes {what} of shape {want} for this input, not {', '.join(map(str, got))}")
        states = [state.to(self.weight_hh_l0.dtype).view(number, batch, self.hidden_size) for state in states]
        order = given.sorted_indices if isinstance(given, PackedSequence) else None
        if order is not None:
            states = [state.index_select(1, order) for state in states]
        return list(states[0]), list(states[1]) if lstm else [None] * number

    def _layers(
        self, x: Tensor, h: list[Tensor], c: list[Tensor | None], sizes: tuple[int, ...]
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        places, last = self.places(), []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            first = layer * directions
            coded, outputs = self.input_codes(places[first], x), []
            for reverse in range(directions):
                at = first + reverse
                result = self.direction(places[at], x, coded, h[at], c[at], sizes, bool(reverse))
                outputs.append(result.hidden)
                last.append(tuple(state for state in (result.h_n, result.c_n) if state is not None))
            x = torch.cat(outputs, 1) if directions == 2 else outputs[0]
        return x, last


class LSTM(RecurrentLayer):
    """`torch.nn.LSTM` with quantized weights, inputs and hidden states; without quantizers it is torch's layer.

    Forward, with ``a = sum_x * (scale_x * scale_w) + (b_ih + b_hh)`` for all steps at once and ``b = sum_h * (scale_h * scale_w)`` at each step, of sums of
    codes: ``i, f, g, o = a + b``; ``c' = sigmoid(f) * c + sigmoid(i) * tanh(g)``; ``h' = sigmoid(o) * tanh(c')``. Each pre-activation and each ``c'`` under a tanh is
    first rounded to 8 bits of step 1/16, range [-8, 8), and its sigmoid or tanh is read from a table of 256 float32 values; ``c`` itself is float32. Each
    operation is rounded once, in this order, so eval gives the same bits on every machine, for every batch, packed or not.

    Backward: through the rounding inside the range, with the functions' derivatives at the rounded values.

    Grids and tables belong to the quantized layer: with any quantizer at all it has them, and sides without one enter the sums as floats.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As torch's.
    proj_size : int
        0; more only without quantizers.
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them. Each weight matrix, each layer's input and the hidden state of each direction get a quantizer of their own. From the
        second layer on inputs are hidden states. The gradient of the inputs' sums is quantized once for all steps, a sample being one step of one
        sequence; that of the hidden ones at each step.
    hidden_quantizer : "as_input", None, str, dict, callable or Quantizer
        For the hidden states. By default the input's, told that states are signed: see `lobit.nn.recurrent_quantizers.of_states`.
    **kwargs
        ``device`` and ``dtype``.

    Raises
    ------
    ConfigError
        For quantizers together with ``proj_size``.

    Notes
    -----
    ``lsq``, ``linear`` and ``sign`` of hidden states run as one operation with a backward pass of its own; any other quantizer of hidden states that learns or is random
    is asked at each step in training, which is slower.

    References
    ----------
    Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 4.4 (low-bit recurrent nets).

    Examples
    --------
    >>> lstm = LSTM(10, 20, num_layers=2, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 4})
    >>> output, (h, c) = lstm(torch.randn(35, 8, 10))
    >>> output.shape, c.shape
    (torch.Size([35, 8, 20]), torch.Size([2, 8, 20]))
    """

    torch_class = nn.LSTM
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]  # states are pairs, as in torch's class
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        nn.RNNBase.__init__(
            self, "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, **kwargs
        )
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)


class GRU(RecurrentLayer):
    """`torch.nn.GRU` with quantized weights, inputs and hidden states; without quantizers it is torch's layer.

    Forward, with ``a`` and ``b`` as in `LSTM`, but ``b_hh`` of the new gate added to ``b``: ``r, z = sigmoid(a + b)``; ``n = tanh(a + r * b)``;
    ``h' = (h - n) * z + n``. The reset gate acts behind the product, as torch's. Grids, tables and backward are `LSTM`'s.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer
        As `LSTM`'s.
    **kwargs
        ``device`` and ``dtype``.

    References
    ----------
    Cho et al., arXiv 1406.1078.
    """

    torch_class = nn.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        nn.RNNBase.__init__(self, "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **kwargs)
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)


class RNN(RecurrentLayer):
    """`torch.nn.RNN` with quantized weights, inputs and hidden states; without quantizers it is torch's layer.

    Forward, with ``a`` and ``b`` as in `LSTM`: ``h' = f(a + b)``, f the tanh or the ReLU, which with quantizers ends at 127/16. Grids, tables and backward
    are `LSTM`'s. States of a ReLU are non-negative.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer
        As `LSTM`'s.
    **kwargs
        ``device`` and ``dtype``.

    Raises
    ------
    ConfigError
        For another nonlinearity.
    """

    torch_class = nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"nonlinearity must be 'tanh' or 'relu', not {nonlinearity!r}")
        mode = f"RNN_{nonlinearity.upper()}"
        nn.RNNBase.__init__(self, mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **kwargs)
        self.nonlinearity = nonlinearity
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, hidden_quantizer)
