"""What attention multiplies: projections of inputs by weights, queries by keys, probabilities by values; each a product of codes where both sides have quantizers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.bits import Alphabet
from lobit.errors import ConfigError
from lobit.nn.cache import codes_of
from lobit.nn.code_product import code_product
from lobit.nn.gradients import product_with_quantized_gradient, with_quantized_gradient
from lobit.nn.integer_convolution import Integers
from lobit.nn.quantized import integers
from lobit.nn.scaled_product import scaled_product
from lobit.nn.several_products import AS_INPUT, SeveralProducts, makers, passes_exact, without_dropout
from lobit.quantizers import LSQ, ActivationQuantizer, CodeDropout, Quantized, WeightQuantizer, get
from lobit.quantizers.base import wide
from lobit.quantizers.registry import Identifier
from lobit.quantizers.tracing import traced

INPUTS = ("query", "key", "value")
PROBABILITY = "probability"


def of_operands(quantizer: ActivationQuantizer) -> ActivationQuantizer:
    """A quantizer like that of the input for what projections make, which has both signs.

    `LSQ` is told so; one whose codes are unsigned becomes a signed `LSQ` of its width; any other is copied.
    """
    if isinstance(quantizer, CodeDropout):
        return CodeDropout(of_operands(quantizer.quantizer), quantizer.p)
    try:
        signed = type(quantizer) is not LSQ and quantizer.code_type.alphabet is not Alphabet.UNSIGNED
    except ConfigError:  # undecided: its first data decide
        signed = True
    return copy.deepcopy(quantizer) if signed else LSQ(width_of(quantizer), nonnegative=False)


def of_probabilities(quantizer: ActivationQuantizer) -> ActivationQuantizer:
    """`LSQ` of the input quantizer's width with unsigned codes, whatever kind that is: how large probabilities are depends on the number of keys, so their step is learned."""
    return LSQ(width_of(quantizer), nonnegative=True)


def width_of(quantizer: ActivationQuantizer) -> int:
    """Bits of its codes, known or not yet decided."""
    inner = without_dropout(quantizer)
    bits = getattr(inner, "bits", None)
    return bits if isinstance(bits, int) else inner.code_type.bits


class Operand(NamedTuple):
    """One side of a product: floats, and their codes where a quantizer makes them."""

    floats: Tensor
    codes: Quantized | None = None
    quantizer: ActivationQuantizer | WeightQuantizer | None = None

    def values(self) -> Tensor:
        """What is multiplied, as floats."""
        return self.floats if self.codes is None else self.codes.values()

    def mapped(self, view: Callable[[Tensor], Tensor]) -> Operand:
        """The same values in another shape."""
        codes = None if self.codes is None else self.codes._replace(codes=view(self.codes.codes))
        return Operand(view(self.floats), codes, self.quantizer)


class AttentionQuantizers(SeveralProducts):
    """Mixed into `torch.nn.MultiheadAttention`.

    Attributes
    ----------
    weight_quantizers : ModuleDict
        ``"in_proj_weight"``, or where keys or values have a width of their own ``"q_proj_weight"``, ``"k_proj_weight"``, ``"v_proj_weight"``.
    input_quantizers : ModuleDict
        ``"query"``, ``"key"``, ``"value"``: what goes into the three projections.
    operand_quantizers : ModuleDict
        ``"query"``, ``"key"``, ``"value"``: what comes out of them; ``"probability"``.
    gradient_quantizer : GradientQuantizer or None
    out_proj : Linear
        With quantizers of its own.
    """

    operand_tables = ("input_quantizers", "operand_quantizers")
    embed_dim: int
    num_heads: int
    in_proj_weight: Any
    in_proj_bias: Any
    input_quantizers: nn.ModuleDict
    operand_quantizers: nn.ModuleDict
    out_proj: Any

    def weight_names(self) -> tuple[str, ...]:
        """The parameters of the projections in front."""
        return ("in_proj_weight",) if self.in_proj_weight is not None else ("q_proj_weight", "k_proj_weight", "v_proj_weight")

    def set_quantizers(
        self,
        weight_quantizer: Identifier,
        input_quantizer: Identifier,
        gradient_quantizer: Identifier = None,
        operand_quantizer: Identifier = AS_INPUT,
        probability_quantizer: Identifier = AS_INPUT,
    ) -> None:
        """Attach quantizers, see `lobit.nn.MultiheadAttention`; None leaves that side in float. A `Quantizer` itself is used once and copied for the other places."""
        self.start_tables(gradient_quantizer)
        pattern = copy.deepcopy(get(input_quantizer, "activations"))
        weights, inputs = makers(weight_quantizer, "weights"), makers(input_quantizer, "activations")
        device = self.out_proj.weight.device
        for name in self.weight_names():
            self.enter_weight(name, weights())
        for index, place in enumerate(INPUTS):
            columns = getattr(self, self.weight_names()[index % len(self.weight_names())]).shape[1:]
            self.enter_operand("input_quantizers", place, inputs(), columns, device)
        operands = self._operand_makers(operand_quantizer, pattern, of_operands)
        for place in INPUTS:
            self.enter_operand("operand_quantizers", place, operands(), (self.embed_dim,), device)
        probabilities = self._operand_makers(probability_quantizer, pattern, of_probabilities)
        self.enter_operand("operand_quantizers", PROBABILITY, probabilities(), (1,), device)
        self.out_proj.set_quantizers(weights(), None if pattern is None else of_operands(pattern), copy.deepcopy(self.gradient_quantizer))

    @staticmethod
    def _operand_makers(
        given: Identifier, pattern: ActivationQuantizer | None, like: Callable[[ActivationQuantizer], ActivationQuantizer]
    ) -> Callable[[], ActivationQuantizer | None]:
        if given != AS_INPUT:
            return makers(given, "activations")
        return lambda: None if pattern is None else like(without_dropout(pattern))

    def _name(self) -> str:
        return f"a {type(self).__name__} of {self.num_heads} heads and {self.embed_dim} features"

    @property
    def is_quantized(self) -> bool:
        """Whether it has a quantizer at all."""
        return super().is_quantized or self.out_proj.is_quantized

    @property
    def exact(self) -> bool:
        """Whether all operands of its products are codes, and no quantizer is switched off."""
        return super().exact and self.out_proj.exact

    def operand(self, table: nn.ModuleDict, place: str, x: Tensor) -> Operand:
        """A tensor and its codes; one that is switched off is asked too, as data-parallel training waits for its parameters."""
        if place not in table:
            return Operand(x)
        quantizer: Any = table[place]
        return Operand(x, quantizer(x), quantizer)

    def weight_codes(self, name: str) -> Quantized | None:
        """Codes and scale of a weight matrix; the floats themselves while its quantizer is switched off; None where it has none."""
        table = self.weight_quantizers
        quantizer: Any = table[name] if name in table else None  # noqa: SIM401  # a ModuleDict has no get
        return codes_of(getattr(self, name), quantizer, self._kept[name], self.training)

    def projections(self) -> list[tuple[Operand, Tensor | None]]:
        """Weights and biases of queries, keys and values."""
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        found: list[Operand] = []
        for name in self.weight_names():
            weight, codes = getattr(self, name), self.weight_codes(name)
            parts = 3 // len(self.weight_names())
            if codes is None:
                found += [Operand(part) for part in weight.chunk(parts)]
                continue
            scales = codes.scale.chunk(parts) if codes.scale.numel() > 1 else [codes.scale] * parts
            quantizer: Any = self.weight_quantizers[name]
            split = zip(weight.chunk(parts), codes.codes.chunk(parts), scales, strict=True)
            found += [Operand(part, Quantized(whole, scale), quantizer) for part, whole, scale in split]
        return list(zip(found, biases, strict=True))

    def project(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """``x @ weight.T + bias``: a sum of codes, its scale, then the bias, as in `lobit.nn.Linear`."""
        if x.codes is None or weight.codes is None:
            y = self._linear(x.values(), weight.values())
            return y if bias is None else y + bias
        scale = (x.codes.scale * weight.codes.scale).flatten()
        if self._keeps_codes(x, weight):
            return scaled_product(x.codes.centred(), weight.codes.codes, scale, bias, "linear", _held(x, weight))
        y = self._sum(self._linear, x.codes.centred(), weight.codes.codes, self._is_long(x, weight, weight.floats.shape[1])) * scale
        if x.codes.offset is not None:
            y = y + weight.codes.codes.sum(1) * (x.codes.offset * weight.codes.scale).flatten()
        return y if bias is None else y + bias

    def multiply(self, a: Operand, b: Operand, factor: float = 1.0) -> Tensor:
        """``a @ b * factor`` of two computed tensors: a sum of codes times one scale; with an offset on a side a product of floats."""
        if a.codes is None or b.codes is None or a.codes.offset is not None or b.codes.offset is not None:
            return self._matmul(a.values(), b.values()) * factor
        scale = a.codes.scale * b.codes.scale * factor
        if self._keeps_codes(a, b):
            return code_product(a.codes.centred(), b.codes.centred(), scale, _held(a, b))
        return self._sum(self._matmul, a.codes.centred(), b.codes.centred(), self._is_long(a, b, a.floats.shape[-1])) * scale

    def _linear(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.gradient_quantizer is None:
            return F.linear(x, weight)
        return product_with_quantized_gradient(F.linear, x, weight, self.gradient_quantizer)

    def _matmul(self, a: Tensor, b: Tensor) -> Tensor:
        y = torch.matmul(a, b)
        return y if self.gradient_quantizer is None else with_quantized_gradient(y, self.gradient_quantizer)

    def _keeps_codes(self, a: Operand, b: Operand) -> bool:
        """Whether a step of training can run as one operation that keeps bytes; graphs see the plain arithmetic instead."""
        plain = (
            torch.float64 in (a.floats.dtype, b.floats.dtype)
            or self.gradient_quantizer is not None
            or traced()
            or not self.training
            or not torch.is_grad_enabled()
        )
        return not plain and all(_are_integers(side) and side.codes is not None and side.codes.offset is None for side in (a, b))

    def _is_long(self, a: Operand, b: Operand, terms: int) -> bool:
        assert a.quantizer is not None and b.quantizer is not None  # noqa: PT018  # both sides are codes
        return not self.training and passes_exact(terms, a.quantizer, b.quantizer)

    @staticmethod
    def _sum(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, long: bool) -> Tensor:
        return product(wide(a), wide(b)).to(a.dtype) if long else product(a, b)


def _are_integers(side: Operand) -> bool:
    """Whether codes are integers; they are not while calibration observes their floats, or a schedule has switched them off."""
    quantizer = side.quantizer
    return quantizer is not None and not (quantizer.off or quantizer.fractions or getattr(quantizer, "observes", False))


def _held(a: Operand, b: Operand) -> tuple[Integers, Integers]:
    return integers(a.quantizer), integers(b.quantizer)
