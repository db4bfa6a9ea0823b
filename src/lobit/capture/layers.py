"""What lobit's own layers become: codes, sums and chains, with the very constants that eval uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lobit import nn as lnn
from lobit.bits import FLOAT_BITS, Alphabet, Bits, CodeType
from lobit.capture.builder import ChainStep, GraphBuilder, Value
from lobit.capture.opaque import layer_class
from lobit.capture.resize import resize
from lobit.capture.windows import adaptive_pool_attrs, avg_pool_attrs, conv_attrs, lifted
from lobit.errors import ConfigError, ExportError
from lobit.format import Constant
from lobit.format.geometry import image_size
from lobit.nn import QuantizedLayer
from lobit.quantizers import ActivationQuantizer, GroupedWeights, Quantized

ZERO_OR_ONE = CodeType(Alphabet.UNSIGNED, 1)
Emit = Callable[[GraphBuilder, str, Any, Value, tuple[int, ...]], Value]


def emit_layer(builder: GraphBuilder, path: str, layer: nn.Module, x: Value, shape: tuple[int, ...]) -> Value:
    """Append the nodes of the opaque layer at ``path``; ``shape`` is its output's, without the batch axis.

    Raises
    ------
    ExportError
        Naming the layer, when it has not seen data or cannot be exported.
    """
    try:
        return LAYERS[layer_class(layer)](builder, path, layer, x, shape)
    except (ConfigError, ValueError) as error:
        raise ExportError(f"layer {path!r} ({type(layer).__name__}): {error}") from error


def _product(builder: GraphBuilder, path: str, layer: QuantizedLayer, x: Value, shape: tuple[int, ...]) -> Value:
    op = "conv2d" if isinstance(layer, nn.Conv1d | nn.Conv2d) else "linear"
    check_rank(f"layer {path!r} ({type(layer).__name__})", layer.weight, x)
    attrs = conv_attrs_of(layer) if op == "conv2d" else {}
    if not layer.exact:
        return _float_product(builder, path, layer, x, shape, op, attrs)
    assert layer.input_quantizer is not None
    if isinstance(layer.weight_quantizer, GroupedWeights):
        raise ExportError(
            f"layer {path!r} ({type(layer).__name__}) has scales for groups of {layer.weight_quantizer.group} inputs, and a packed network has one for each output "
            "so far; train it without group=, or run the model in PyTorch, where its eval is exact"
        )
    weight = layer.quantized_weight()
    assert weight is not None and layer.weight_quantizer is not None  # noqa: PT018  # both hold in the exact class
    codes = _input_codes(builder, path, layer, x, attrs)
    inputs, sides = meaning(layer.input_quantizer), weight.sides()
    code = layer.weight_quantizer.code_type if len(sides) == 1 else ZERO_OR_ONE
    bases = [path, f"{path}.negative"][: len(sides)]
    names, sums, stored = [builder.unique(base) for base in bases], [], []
    for base, name, side in zip(bases, names, sides, strict=True):
        constant = Constant.from_codes(integers(two_axes(side.codes)), code)
        sums.append(builder.node(op, name, [codes], shape, attrs, {"weight": constant}, output=f"{base}.sum"))
        stored.append(builder.nodes[-1].constants["weight"])
    builder.layer(names[0], op, str(_bits(layer)), x, None, *stored)
    steps = [_scaled(inputs.scale, side) for side in sides]
    bias: list[ChainStep] = [] if layer.bias is None else [("add", "bias", floats(layer.bias))]
    shifted = inputs.offset is not None and any(attrs.get("padding", ()))
    if inputs.offset is not None and not shifted:
        bias = [("add", "offset", _shift_inside(inputs.offset, sides)), *bias]
    if len(sides) == 1 and not shifted:
        return builder.chain(f"{path}.out", sums[0], [*steps[0], *bias])
    values = [builder.chain(f"{base}.scaled", of_side, scaled) for base, of_side, scaled in zip(bases, sums, steps, strict=True)]
    y = _together(builder, path, values)
    if inputs.offset is not None and shifted:
        ones = builder.chain(f"{path}.ones", codes, [("to_float",), ("max", "one", 1.0)], ZERO_OR_ONE)
        shifts = []
        for base, side, constants in zip(bases, sides, stored, strict=True):
            name, output = builder.unique(f"{base}.border"), f"{base}.border_sum"
            border = builder.node(op, name, [ones], shape, attrs, {"weight": constants}, output=output)
            shifts.append(builder.chain(f"{base}.shift", border, _scaled(inputs.offset, side)))
        y = builder.node("add", builder.unique(f"{path}.shifted"), [y, _together(builder, f"{path}.shift", shifts)], shape)
    return builder.chain(f"{path}.out", y, bias)


def _scaled(scale: Tensor, weight: Quantized) -> list[ChainStep]:
    """From sums of codes to their values, by the scale of each output channel."""
    return [("to_float",), ("mul", "scale", floats((scale * weight.scale).flatten()))]


def _together(builder: GraphBuilder, name: str, parts: list[Value]) -> Value:
    """The sum of the one or two sides of a layer's weights."""
    return parts[0] if len(parts) == 1 else builder.node("add", builder.unique(f"{name}.both"), parts, parts[0].shape)


def _shift_inside(offset: Tensor, sides: Sequence[Quantized]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What a real offset of the input adds where nothing is padded; sums are exact, then rounded once, as eval's of float64."""
    first, *others = (floats(side.codes.flatten(1).double().sum(1)) * floats((offset * side.scale).flatten()) for side in sides)
    return sum(others, first)


def _float_product(
    builder: GraphBuilder, path: str, layer: QuantizedLayer, x: Value, shape: tuple[int, ...], op: str, attrs: dict[str, Any]
) -> Value:
    """One side is float: the product runs in float, on the values that the codes of the other side stand for."""
    if layer.input_quantizer is not None:
        codes = _input_codes(builder, path, layer, x, attrs)
        inputs = meaning(layer.input_quantizer)
        zero: list[ChainStep] = [("sub", "zero", float(inputs.zero))] if inputs.zero else []
        offset: list[ChainStep] = [] if inputs.offset is None else [("add", "offset", floats(inputs.offset))]
        x = builder.chain(f"{path}.values", codes, [("to_float",), *zero, ("mul", "scale", floats(inputs.scale)), *offset])
    quantized = layer.quantized_weight()
    weight = layer.weight if quantized is None else quantized.values()
    return float_product(builder, path, op, x, shape, attrs, weight, layer.bias, str(_bits(layer)))


def float_product(
    builder: GraphBuilder,
    path: str,
    op: str,
    x: Value,
    shape: tuple[int, ...],
    attrs: dict[str, Any],
    weight: Tensor,
    bias: Tensor | None,
    bits: str = "W32A32",
) -> Value:
    """Append a float linear or conv layer, which is inexact."""
    name, why = builder.unique(path), "a float product; its sum depends on the order of the terms"
    constants = {"weight": Constant.from_array(floats(two_axes(weight)))}
    if bias is not None:
        constants["bias"] = Constant.from_array(floats(bias))
    y = builder.node(f"{op}_f32", name, [x], shape, attrs, constants, output=f"{path}.out", inexact=why)
    builder.layer(name, f"{op}_f32", bits, x, why, builder.nodes[-1].constants["weight"])
    return y


def quantize(builder: GraphBuilder, name: str, quantizer: ActivationQuantizer, x: Value) -> Value:
    """Append the chain that makes a quantizer's codes; the value has this name."""
    steps = [(op, f"c{index}", floats(operand)) for index, (op, operand) in enumerate(quantizer.steps())]
    return builder.chain(name, x, steps, quantizer.code_type, quantizer.zero)


def meaning(quantizer: ActivationQuantizer) -> Quantized:
    """Scale, zero and offset of an activation quantizer in eval, which do not depend on the input."""
    quantized: Quantized = quantizer(torch.zeros(1))
    return quantized


def _input_codes(builder: GraphBuilder, path: str, layer: QuantizedLayer, x: Value, attrs: dict[str, Any]) -> Value:
    """The codes of a layer's input; a padding value makes a border of its own, and nothing is left to pad in ``attrs``."""
    assert layer.input_quantizer is not None
    codes = quantize(builder, f"{path}.input", layer.input_quantizer, x)
    value = getattr(layer, "padding_value", 0)
    if not value or not any(attrs["padding"]):
        return codes
    top, left, bottom, right = attrs["padding"]
    height, width = image_size(x.shape)
    size = (height + top + bottom, width + left + right)[3 - len(x.shape) :]
    attrs["padding"] = [0, 0, 0, 0]
    pads = {"padding": [top, left, bottom, right], "value": value}
    return builder.node("pad2d", builder.unique(f"{path}.padded"), [codes], (x.shape[0], *size), pads)


def conv_attrs_of(layer: Any) -> dict[str, Any]:
    """Attributes of a convolutional layer."""
    return conv_attrs(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)


def _bits(layer: QuantizedLayer) -> Bits:
    weights = FLOAT_BITS if layer.weight_quantizer is None else layer.weight_quantizer.code_type.bits
    return Bits(weights, FLOAT_BITS if layer.input_quantizer is None else layer.input_quantizer.code_type.bits)


def _batch_norm(builder: GraphBuilder, path: str, layer: lnn.BatchNorm2d, x: Value, shape: tuple[int, ...]) -> Value:
    a, b = layer.factors()
    y = builder.chain(path, x, [("mul", "a", floats(a)), ("add", "b", floats(b))])
    builder.layer(y.name, "batch norm", "", x, None)
    return y


def _shift_batch_norm(builder: GraphBuilder, path: str, layer: lnn.ShiftBatchNorm2d, x: Value, shape: tuple[int, ...]) -> Value:
    mean, factor, bias = layer.factors()
    y = builder.chain(path, x, [("sub", "mean", floats(mean)), ("mul", "factor", floats(factor)), ("add", "bias", floats(bias))])
    builder.layer(y.name, "batch norm", "", x, None)
    return y


def _rprelu(builder: GraphBuilder, path: str, layer: lnn.RPReLU, x: Value, shape: tuple[int, ...]) -> Value:
    """Both sides of the kink, one of which is zero before ``zeta`` is added, so that their sum rounds as PyTorch's one sum does."""
    shift, zero = ("sub", "gamma", floats(layer.gamma)), ("zero", 0.0)
    above = builder.chain(f"{path}.above", x, [shift, ("max", *zero), ("add", "zeta", floats(layer.zeta))])
    below = builder.chain(f"{path}.below", x, [shift, ("min", *zero), ("mul", "beta", floats(layer.beta))])
    y = builder.node("add", builder.unique(path), [above, below], shape)
    builder.layer(y.name, "rprelu", "", x, None)
    return y


def _avg_pool(builder: GraphBuilder, path: str, layer: Any, x: Value, shape: tuple[int, ...]) -> Value:
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    if isinstance(layer, nn.AvgPool1d):
        kernel, stride, padding = lifted(kernel, 1), lifted(stride, 1), lifted(padding, 0)
    given = (layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
    return _pool(builder, path, x, shape, avg_pool_attrs(kernel, stride, padding, *given))


def _adaptive_avg_pool(builder: GraphBuilder, path: str, layer: Any, x: Value, shape: tuple[int, ...]) -> Value:
    size = layer.output_size
    if isinstance(layer, nn.AdaptiveAvgPool1d):
        size = (1, size[0] if isinstance(size, (tuple, list)) else size)
    return _pool(builder, path, x, shape, adaptive_pool_attrs(image_size(x.shape), size))


def _global_avg_pool(builder: GraphBuilder, path: str, layer: lnn.GlobalAvgPool2d, x: Value, shape: tuple[int, ...]) -> Value:
    y = _pool(builder, path, x, (*shape, 1, 1), adaptive_pool_attrs(image_size(x.shape), 1))
    return builder.node("flatten", builder.unique(f"{path}.flat"), [y], shape)


def _pool(builder: GraphBuilder, path: str, x: Value, shape: tuple[int, ...], attrs: dict[str, Any]) -> Value:
    y = builder.node("avg_pool2d", builder.unique(path), [x], shape, attrs)
    builder.layer(y.name, "avg_pool2d", "", x, None)
    return y


def _resize(builder: GraphBuilder, path: str, layer: lnn.Upsample, x: Value, shape: tuple[int, ...]) -> Value:
    y = resize(builder, path, x, shape, layer.axes(shape[1:], x.shape[1:]))
    builder.layer(y.name, "resize2d", "", x, None)
    return y


def floats(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A float32 copy of a tensor, or one value of a tensor without axes."""
    array = tensor.detach().to(torch.float32).cpu().contiguous().numpy().copy()
    return array if array.ndim else array.reshape(1)


def integers(codes: Tensor) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Codes, held as floats, as integers."""
    return codes.detach().to(torch.int16).cpu().contiguous().numpy()


def two_axes(weight: Tensor) -> Tensor:
    """Weights as the graph has them: a kernel along a row, (O, I, k), is one of a single row."""
    return weight.unsqueeze(2) if weight.ndim == 3 else weight


def check_rank(who: str, weight: Tensor, x: Value) -> None:
    """Refuse an input that has not the axes which a layer's weights slide along."""
    if len(x.shape) != weight.ndim - 1:
        wanted = {2: "(N, K): flatten it first, or use a convolution with a kernel of 1", 3: "(N, C, L)", 4: "(N, C, H, W)"}[weight.ndim]
        raise ExportError(f"{who} gets an input of shape (N, {', '.join(map(str, x.shape))}); in a file it takes {wanted}")


def elements(shape: Sequence[int]) -> int:
    """How many values a shape has."""
    return math.prod(shape)


LAYERS: dict[type[nn.Module], Emit] = {
    lnn.Linear: _product,
    lnn.Conv1d: _product,
    lnn.Conv2d: _product,
    lnn.BatchNorm1d: _batch_norm,
    lnn.BatchNorm2d: _batch_norm,
    lnn.ShiftBatchNorm1d: _shift_batch_norm,
    lnn.ShiftBatchNorm2d: _shift_batch_norm,
    lnn.RPReLU: _rprelu,
    lnn.AvgPool1d: _avg_pool,
    lnn.AvgPool2d: _avg_pool,
    lnn.AdaptiveAvgPool1d: _adaptive_avg_pool,
    lnn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    lnn.GlobalAvgPool2d: _global_avg_pool,
    lnn.Upsample: _resize,
}
