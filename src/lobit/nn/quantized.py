"""What the layers with weights share: quantizers, sums of codes that are exact integers, cached weight codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.cache import KeptCodes, codes_of
from lobit.nn.gradients import Product, product_with_quantized_gradient
from lobit.nn.grouped import check_groups, grouped_product
from lobit.nn.holders import hold
from lobit.nn.integer_convolution import EXACT_IN_FLOAT32, Integers
from lobit.nn.scaled_product import Map, Tangent, scaled_product
from lobit.quantizers import ActivationQuantizer, CodeDropout, GradientQuantizer, GroupedWeights, Quantized, WeightQuantizer
from lobit.quantizers.base import constant, wide
from lobit.quantizers.tracing import traced


class QuantizedLayer(nn.Module):
    """Mixed into a layer of torch.nn that has a ``weight`` and a ``bias``.

    Attributes
    ----------
    weight_quantizer : WeightQuantizer or None
    input_quantizer : ActivationQuantizer or None
    gradient_quantizer : GradientQuantizer or None
    channel_axis : int
        Where outputs have their channels, from the end.
    takes_groups : bool
        Whether its weights may have a scale for each group of inputs.
    """

    channel_axis: ClassVar[int] = -1
    takes_groups: ClassVar[bool] = False
    weight: Tensor
    bias: Any
    weight_quantizer: WeightQuantizer | None
    input_quantizer: ActivationQuantizer | None
    gradient_quantizer: GradientQuantizer | None

    def set_quantizers(
        self,
        weight_quantizer: WeightQuantizer | None,
        input_quantizer: ActivationQuantizer | None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        """Attach quantizers; None leaves that side in float.

        Raises
        ------
        ConfigError
            For a quantizer with a state that belongs to another layer.
        """
        name = f"a {type(self).__name__} with weights of shape {tuple(self.weight.shape)}"
        check_groups(weight_quantizer, self.takes_groups, name)
        if input_quantizer is not None:
            hold(input_quantizer, self, input_quantizer.owner or name)
        if weight_quantizer is not None:
            weight_quantizer.attach(self.rows(self.weight))
        if input_quantizer is not None:
            input_quantizer.attach(self.input_channels, self.weight.device)
        for quantizer in (weight_quantizer, input_quantizer, gradient_quantizer):
            if quantizer is not None and not quantizer.owner:
                quantizer.owner = name
        self.weight_quantizer = weight_quantizer
        self.input_quantizer = input_quantizer
        self.gradient_quantizer = gradient_quantizer
        self._kept = KeptCodes()

    @property
    def is_quantized(self) -> bool:
        """Whether it has a quantizer at all."""
        return any(q is not None for q in (self.weight_quantizer, self.input_quantizer, self.gradient_quantizer))

    @property
    def exact(self) -> bool:
        """Whether it belongs to the exact class: both sides are codes, and none is switched off."""
        return all(q is not None and not q.off for q in (self.weight_quantizer, self.input_quantizer))

    @property
    def input_channels(self) -> tuple[int, ...]:
        """Shape of a tensor with one value for each input channel that broadcasts over the input."""
        channels = getattr(self, "in_channels", None)  # of convolutions
        return (self.weight.shape[-1],) if channels is None else (channels, *[1] * (self.weight.ndim - 2))

    @property
    def accumulator_bound(self) -> int:
        """Largest magnitude of a sum: ``K * max|code_x - zero| * max|code_w|``, K inputs for one output."""
        assert self.weight_quantizer is not None
        assert self.input_quantizer is not None
        x, zero = self.input_quantizer.code_type, self.input_quantizer.zero
        return self.rows(self.weight)[0].numel() * max(abs(x.lo - zero), abs(x.hi - zero)) * self.weight_quantizer.code_type.max_abs

    def check_input_bits(self, bits: int) -> None:
        """Refuse a width of the input that the layer cannot have, whatever the quantizer can.

        Raises
        ------
        ConfigError
            For such a width.
        """

    def rows(self, weight: Tensor) -> Tensor:
        """Weights with the output channels first, ``(O, ..)``, as quantizers and `product` take them."""
        return weight

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's linear map without a bias, by weights as `rows` gives them."""
        raise NotImplementedError

    def linear_map(self, x: Tensor) -> Map | None:
        """What `product` is for an input, where `scaled_product` knows it; None where it does not."""
        return None

    def per_channel(self, values: Tensor) -> Tensor:
        """Shape (O,) values, or one, so that they broadcast over the output."""
        return values.reshape(-1, *[1] * (-1 - self.channel_axis))

    def pad(self, x: Tensor) -> Tensor:
        """An input, or its codes, with the border that `product` does not add by itself."""
        return x

    def quantized_input(self, x: Tensor) -> Quantized:
        """Codes and scale of the input, as `product` takes them."""
        assert self.input_quantizer is not None
        inputs: Quantized = self.input_quantizer(x)
        return inputs._replace(codes=self.pad(inputs.codes))

    def quantized_forward(self, x: Tensor, product: Product | None = None) -> Tensor:
        """``product(codes_x - zero, codes_w) * (scale_x * scale_w)``, then ``+ bias``: codes first, two float operations after the exact sum.

        An input with an offset adds ``product(1, codes_w) * (offset * scale_w)`` ahead of the bias: a second exact sum, of the weights that an output sees.
        Weights with a scale for each side of 0 make two exact sums of either, one a side, in eval; in training one product with their values.
        Weights with a scale for each group of inputs make a sum for each: `grouped_product`; in training the values are multiplied.
        ``product`` stands for the layer's own where a call has settings of its own.
        """
        self._check_dtype()
        weight = self.quantized_weight()
        grouped = isinstance(self.weight_quantizer, GroupedWeights) and self.exact
        if self.input_quantizer is None or weight is None or not self.exact or (grouped and self.training):
            values = x if self.input_quantizer is None else self.quantized_input(x).values()
            y = self._product(values, self.rows(self.weight) if weight is None else weight.values(), product)
        elif isinstance(self.weight_quantizer, GroupedWeights):
            y = grouped_product(self.quantized_input(x), weight, self.weight_quantizer.group, self._sum)
        else:
            inputs = self.quantized_input(x)
            how = self.linear_map(x) if product is None else None
            if weight.negative is not None and self.training:
                weight = Quantized(weight.values(), constant(1.0, weight.codes))
            if how is not None and self._keeps_codes(inputs):
                held = (integers(self.input_quantizer), integers(self.weight_quantizer))
                tangent = None if how == "linear" else self._tangent(x, inputs)
                return scaled_product(
                    inputs.centred(), weight.codes, (inputs.scale * weight.scale).flatten(), self.bias, how, held, tangent
                )
            sides = weight.sides()
            y = self._scaled_sums(inputs.centred(), sides, inputs.scale, product)
            if inputs.offset is not None:
                shape = inputs.codes.shape
                ones = x.new_ones(shape if x.ndim < weight.codes.ndim else (1, *shape[1:]))
                y = y + self._scaled_sums(ones, sides, inputs.offset, product)
        return y if self.bias is None else y + self.per_channel(self.bias)

    def quantized_weight(self) -> Quantized | None:
        """Codes and scale of the weights; in eval without gradient they are kept until the weights change."""
        return codes_of(self.weight, self.weight_quantizer, self._kept, self.training, self.rows)

    def _keeps_codes(self, inputs: Quantized) -> bool:
        """Whether a step of training can run as one operation, `scaled_product`; graphs see the plain arithmetic instead."""
        plain = inputs.offset is not None or self.gradient_quantizer is not None or self._has_fractions or self._observes
        plain = plain or traced()
        return self.training and torch.is_grad_enabled() and self.weight.dtype == torch.float32 and not plain

    def _tangent(self, x: Tensor, inputs: Quantized) -> Tangent | None:
        """How an input that has no gradient itself, as images have none, depends on its scale, where that learns."""
        if x.requires_grad or not inputs.codes.requires_grad or not inputs.scale.requires_grad or self.input_quantizer is None:
            return None
        slope = self.input_quantizer.slope_in_scale(x, inputs.scale)
        return None if slope is None else Tangent(inputs.scale, self.pad(slope))

    @property
    def _has_fractions(self) -> bool:
        """Whether a quantizer is for training alone, with codes that are no integers, so that no sum is exact."""
        return any(quantizer is not None and quantizer.fractions for quantizer in (self.input_quantizer, self.weight_quantizer))

    def _check_dtype(self) -> None:
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            raise ConfigError(
                f"a quantized layer has {self.weight.dtype} weights; keep them float32 (model.float()) and train with torch.autocast"
            )

    def _sum(self, x: Tensor, weight: Tensor, product: Product | None = None) -> Tensor:
        if self.training or self._observes or self._has_fractions or self.accumulator_bound <= EXACT_IN_FLOAT32:
            return self._product(x, weight, product)
        return self._product(wide(x), wide(weight), product).to(x.dtype)

    def _scaled_sums(self, x: Tensor, sides: tuple[Quantized, ...], scale: Tensor, product: Product | None) -> Tensor:
        first, *others = (self._sum(x, side.codes, product) * self._scale(scale, side.scale) for side in sides)
        return sum(others, first)

    @property
    def _observes(self) -> bool:
        """Whether its input passes as float while calibration observes it, so that no sum is exact."""
        return self.input_quantizer is not None and self.input_quantizer.observes

    def _product(self, x: Tensor, weight: Tensor, product: Product | None = None) -> Tensor:
        product = product or self.product
        if self.gradient_quantizer is None:
            return product(x, weight)
        return product_with_quantized_gradient(product, x, weight, self.gradient_quantizer)

    def _scale(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.per_channel((x * weight).flatten())

    def train(self, mode: bool = True) -> Any:
        """Switch the mode and drop kept weight codes."""
        self._kept.drop()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._kept.drop()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._kept.drop()
        for name in ("weight_quantizer", "input_quantizer", "gradient_quantizer"):
            quantizer = getattr(self, name)
            has_state = any(key.startswith(f"{prefix}{name}.") for key in state_dict)
            if quantizer is not None and f"{prefix}weight" in state_dict and not has_state:
                quantizer.reset()


def integers(quantizer: ActivationQuantizer | WeightQuantizer | None) -> Integers:
    """The integers ``codes - zero`` of a quantizer; -1 and +1 alone where it has one bit of them, which dropout makes three; weights with two scales multiply as values."""
    lo, hi = code_range(quantizer)
    one_bit = (lo, hi) == (-1, 1) and quantizer is not None and quantizer.code_type.bits == 1
    floats = isinstance(quantizer, WeightQuantizer) and quantizer.two_scales
    return Integers(lo, hi, one_bit and not isinstance(quantizer, CodeDropout), floats)


def code_range(quantizer: ActivationQuantizer | WeightQuantizer | None) -> tuple[int, int]:
    """Of ``codes - zero``; that of nothing but zeros while a quantizer waits for its first batch with other values."""
    assert quantizer is not None
    if quantizer.undecided:
        return 0, 0
    code = quantizer.code_type
    return code.lo - quantizer.zero, code.hi - quantizer.zero
