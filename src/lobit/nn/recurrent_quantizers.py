"""What recurrent layers and cells share: a quantizer for each weight matrix, for each input and for each hidden state."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet
from lobit.errors import ConfigError
from lobit.nn.bptt import recur, run, uniform
from lobit.nn.quantized import QuantizedLayer, integers
from lobit.nn.recurrence import Kind, Operands, Result, Steps, offset_term, times, walk
from lobit.nn.several_products import AS_INPUT, QuantizedWeight, SeveralProducts, makers, passes_exact, without_dropout
from lobit.quantizers import (
    LSQ,
    ActivationQuantizer,
    CodeDropout,
    FromData,
    LinearQuant,
    Quantized,
    WeightQuantizer,
    get,
)
from lobit.quantizers.registry import Identifier
from lobit.quantizers.tracing import differentiated, traced

__all__ = ["AS_INPUT", "Place", "RecurrentQuantizers", "of_states", "quantized_weights"]


def quantized_weights(module: nn.Module) -> Iterator[QuantizedWeight]:
    """The weights of a layer itself that have a quantizer, not those of the layers in it: one matrix of most layers, several of recurrent ones and of attention."""
    if isinstance(module, SeveralProducts):
        yield from module.quantized_weights()
    elif isinstance(module, QuantizedLayer) and module.weight_quantizer is not None:
        yield QuantizedWeight(module.weight, module.weight_quantizer)


class Place(NamedTuple):
    """One direction of one layer: the end of its parameters' names, the key of its input's quantizer, and whether its input is a hidden state itself."""

    suffix: str
    source: str
    deep: bool


def of_states(quantizer: ActivationQuantizer, nonnegative: bool) -> ActivationQuantizer:
    """A quantizer of the same kind and width for hidden states: signed, or non-negative behind a ReLU.

    `LSQ` is told which; one whose codes are unsigned becomes `LinearQuant` of [-1, 1) where states are signed; any other is copied.
    """
    if isinstance(quantizer, CodeDropout):
        return CodeDropout(of_states(quantizer.quantizer, nonnegative), quantizer.p)
    if type(quantizer) is LSQ:
        return LSQ(quantizer.bits, nonnegative)
    try:
        unsigned = quantizer.code_type.alphabet is Alphabet.UNSIGNED
    except ConfigError:  # undecided: its first states decide
        unsigned = False
    return LinearQuant(quantizer.code_type.bits) if unsigned and not nonnegative else copy.deepcopy(quantizer)


class RecurrentQuantizers(SeveralProducts):
    """Mixed into recurrent layers and cells of torch.nn.

    Attributes
    ----------
    weight_quantizers : ModuleDict
        By the name of the parameter: ``"weight_ih_l0"``.
    input_quantizers, hidden_quantizers : ModuleDict
        ``"input_l0"``, one a layer; ``"hidden_l0"`` and ``"hidden_l0_reverse"``, one a layer and direction. ``"input"`` and ``"hidden"`` in cells.
    gradient_quantizer : GradientQuantizer or None
    """

    operand_tables = ("input_quantizers", "hidden_quantizers")
    hidden_size: int
    input_quantizers: nn.ModuleDict
    hidden_quantizers: nn.ModuleDict

    @property
    def kind(self) -> Kind:
        """Which cell it is."""
        raise NotImplementedError

    def places(self) -> list[Place]:
        """Its layers and directions in order."""
        raise NotImplementedError

    def set_quantizers(
        self,
        weight_quantizer: Identifier,
        input_quantizer: Identifier,
        gradient_quantizer: Identifier = None,
        hidden_quantizer: Identifier = AS_INPUT,
    ) -> None:
        """Attach quantizers, a fresh one at each place; None leaves that side in float. A `Quantizer` itself is used once and copied for the other places."""
        self.start_tables(gradient_quantizer)
        first = get(input_quantizer, "activations")
        pattern, nonnegative = copy.deepcopy(first), self.kind == "relu"
        if hidden_quantizer != AS_INPUT:
            hidden = makers(hidden_quantizer, "activations")
        else:
            hidden = (lambda: None) if pattern is None else (lambda: of_states(without_dropout(pattern), nonnegative))
        weights = makers(weight_quantizer, "weights")
        for place in self.places():
            if place.source not in self.input_quantizers and first is not None and pattern is not None:
                quantizer = of_states(pattern, nonnegative) if place.deep else first
                self._enter_source("input_quantizers", place.source, quantizer, f"weight_ih{place.suffix}")
            self._enter_source("hidden_quantizers", f"hidden{place.suffix}", hidden(), f"weight_hh{place.suffix}")
            for name in (f"weight_ih{place.suffix}", f"weight_hh{place.suffix}"):
                self.enter_weight(name, weights())

    def _enter_source(self, table: str, key: str, quantizer: ActivationQuantizer | None, weight: str) -> None:
        """Enter a quantizer told of as many channels as that matrix has columns."""
        matrix: Tensor = getattr(self, weight)
        self.enter_operand(table, key, quantizer, matrix.shape[1:], matrix.device)

    def _name(self) -> str:
        return f"a {type(self).__name__} of {self.hidden_size} units"

    def input_codes(self, place: Place, x: Tensor) -> Quantized | None:
        """Codes of a layer's input, of shape (N, I): each step of each sequence is a sample of its own."""
        quantizer = self._find(self.input_quantizers, place.source)
        return None if quantizer is None else quantizer(x)

    def direction(
        self, place: Place, x: Tensor, coded: Quantized | None, h: Tensor, c: Tensor | None, sizes: tuple[int, ...], reverse: bool
    ) -> Result:
        """One direction of one layer over all steps, see `lobit.nn.recurrence.walk`."""
        hidden: ActivationQuantizer | None = self._find(self.hidden_quantizers, f"hidden{place.suffix}")
        given = self._operands(place, x, coded, h, c)
        learning = differentiated(*given, *(() if hidden is None else hidden.parameters()))
        steps = Steps(self.kind, sizes, reverse, keep_nan=self.training)
        if not traced():
            self._start(hidden, steps, given)
        if not self.training:
            wide = self._too_long(place, x.shape[1], "ih"), self._too_long(place, self.hidden_size, "hh")
            steps = replace(steps, wide_inputs=wide[0], wide_hidden=wide[1])
        if hidden is not None and hidden.observes:
            return self._observed(steps, given, hidden, learning or traced())
        if traced():
            return walk(steps, given, hidden, self.gradient_quantizer)
        fixed = hidden is None or uniform(hidden) is not None
        if learning and fixed:
            return recur(replace(steps, kept=self._kept_dtypes(place, hidden)), given, hidden, self.gradient_quantizer)
        if learning:
            return walk(steps, given, hidden, self.gradient_quantizer)
        return run(steps, given, hidden) if fixed or not self.training else walk(steps, given, hidden)

    def _observed(self, steps: Steps, given: Operands, hidden: ActivationQuantizer, plain: bool) -> Result:
        """A pass whose states stay float while calibration observes them: those of all steps as one batch, with first states that were given, not those of zeros."""
        result = walk(steps, given, None, self.gradient_quantizer) if plain else run(steps, given, None)
        with torch.no_grad():
            hidden(torch.cat([given.h0[given.h0.any(1)], result.hidden]))
        return result

    def _operands(self, place: Place, x: Tensor, coded: Quantized | None, h: Tensor, c: Tensor | None) -> Operands:
        weights, scales = [], []
        for name in (f"weight_ih{place.suffix}", f"weight_hh{place.suffix}"):
            weight, quantized = getattr(self, name), self.weight_codes(name)
            weights.append(weight if quantized is None else quantized.codes)
            scales.append(None if quantized is None else quantized.scale.flatten())
        s_ih = scales[0] if coded is None else times(coded.scale, scales[0])
        o_ih = None if coded is None else offset_term(coded.offset, weights[0], scales[0])
        bias, bias_n = self._biases(place.suffix)
        return Operands(x if coded is None else coded.centred(), weights[0], s_ih, weights[1], scales[1], o_ih, bias, bias_n, h, c)

    def _biases(self, suffix: str) -> tuple[Tensor | None, Tensor | None]:
        """``b_ih + b_hh``; in the new gate of "gru" the two stay apart."""
        b_ih, b_hh = getattr(self, f"bias_ih{suffix}", None), getattr(self, f"bias_hh{suffix}", None)
        if b_ih is None or b_hh is None:
            return None, None
        if self.kind != "gru":
            return b_ih + b_hh, None
        two = 2 * self.hidden_size
        return torch.cat([b_ih[:two] + b_hh[:two], b_ih[two:]]), b_hh[two:]

    def _too_long(self, place: Place, length: int, which: str) -> bool:
        """Whether sums of this many terms pass what float32 holds exactly."""
        weights = self._weight_quantizer(f"weight_{which}{place.suffix}")
        table, key = (self.input_quantizers, place.source) if which == "ih" else (self.hidden_quantizers, f"hidden{place.suffix}")
        inputs: ActivationQuantizer | None = self._find(table, key)
        return weights is not None and inputs is not None and passes_exact(length, weights, inputs)

    def _kept_dtypes(self, place: Place, hidden: ActivationQuantizer | None) -> tuple[torch.dtype | None, ...]:
        weights = self._weight_quantizer(f"weight_ih{place.suffix}")
        found: list[ActivationQuantizer | WeightQuantizer | None] = [self._find(self.input_quantizers, place.source), weights, hidden]
        return tuple(None if q is None or q.fractions or getattr(q, "observes", False) else integers(q).dtype for q in found)

    def _start(self, quantizer: ActivationQuantizer | None, steps: Steps, given: Operands) -> None:
        """Let a quantizer that takes its state from its first batch see the states of all steps, of a pass in which they are float."""
        if quantizer is None or not (self.training or quantizer.calibrating):
            return
        if not all(part.has_started for part in quantizer.modules() if isinstance(part, FromData)):
            with torch.no_grad():
                quantizer(run(steps, given, None).hidden)
