"""What each lobit layer means in the graph: the emitters of the opaque nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lobit import nn as lnn
from lobit.bits import FLOAT_BITS, Bits
from lobit.capture.builder import ChainStep, GraphBuilder, Value
from lobit.capture.opaque import layer_class
from lobit.capture.windows import adaptive_pool_attrs, avg_pool_attrs, conv_attrs
from lobit.errors import ExportError, LobitError
from lobit.format import Constant
from lobit.quantizers.base import Quantized, Quantizer

FLOAT_WEIGHTS = "its weights are float: PyTorch's float sums have no fixed order"
WEIGHT_ONLY = "only its weights are quantized: it sums floats"
INPUT_ONLY = "only its input is quantized: it sums floats"


def emit_layer(builder: GraphBuilder, layer: nn.Module, path: str, x: Value) -> Value:
    """Emit one opaque layer.

    Raises
    ------
    ExportError
        When the layer is not calibrated, or has a setting that the graph cannot express.
    """
    try:
        with torch.no_grad():
            return EMITTERS[layer_class(layer)](builder, layer, path, x)
    except (LobitError, ValueError) as error:
        raise ExportError(f"layer {path!r} ({type(layer).__name__}): {error}") from error


def emit_float_layer(builder: GraphBuilder, name: str, x: Value, weight: Tensor, bias: Tensor | None, attrs: dict[str, Any] | None) -> Value:
    """Emit a linear (``attrs`` None) or conv layer of float weights."""
    return _float_sum(builder, name, x, array_of(weight), bias, attrs, Bits(), FLOAT_WEIGHTS)


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor as a contiguous NumPy array of its own."""
    return np.array(tensor.detach().contiguous().numpy())


def _emit_weighted(builder: GraphBuilder, layer: nn.Linear | nn.Conv2d, path: str, x: Value) -> Value:
    attrs = _conv_attrs(layer) if isinstance(layer, nn.Conv2d) else None
    wanted = 1 if attrs is None else 3
    if len(x.shape) != wanted:
        raise ExportError(f"its input has shape {x.shape} without the batch; it needs {'(K,)' if wanted == 1 else '(C, H, W)'}: flatten it first")
    weights: Quantizer | None = layer.weight_quantizer  # type: ignore[assignment]  # an attribute of lobit's subclass
    inputs: Quantizer | None = layer.input_quantizer  # type: ignore[assignment]
    bits = Bits(weights.code_type.bits if weights else FLOAT_BITS, inputs.code_type.bits if inputs else FLOAT_BITS)
    path = builder.unique(path)
    if inputs is not None:
        x, scale_x = _emit_codes(builder, inputs, path, x)
    if weights is None:
        assert inputs is not None  # a layer without quantizers is not opaque
        floats: list[ChainStep] = [("to_float",), *_minus_zero(inputs), ("mul", "scale", scale_x)]
        x = builder.chain(f"{path}.dequantized", x, floats)
        return _float_sum(builder, path, x, array_of(layer.weight), layer.bias, attrs, bits, INPUT_ONLY)
    quantized: Quantized = weights(layer.weight)
    if inputs is None:
        values = array_of((quantized.codes * quantized.scale).expand_as(layer.weight))
        return _float_sum(builder, path, x, values, layer.bias, attrs, bits, WEIGHT_ONLY)
    codes = Constant.from_codes(array_of(quantized.codes), weights.code_type)
    sums = builder.node(
        "linear" if attrs is None else "conv2d",
        path,
        [x],
        _output_shape(layer, x),
        attrs,
        {"weight": codes},
        output=f"{path}.sum",
        bits=str(bits),
    )
    # scale_x * scale_w: one float32 product per output channel, as the layer's own eval forward forms it
    steps: list[ChainStep] = [("to_float",), ("mul", "scale", array_of(torch.as_tensor(scale_x) * quantized.scale.reshape(-1)))]
    if layer.bias is not None:
        steps.append(("add", "bias", array_of(layer.bias)))
    return builder.chain(f"{path}.scaled", sums, steps)


def _emit_codes(builder: GraphBuilder, quantizer: Quantizer, path: str, x: Value) -> tuple[Value, Tensor]:
    """The codes of a layer's input, named ``{path}.input``, and their scale."""
    steps: list[ChainStep] = [(op,) if operand is None else (op, op, array_of(operand)) for op, operand in quantizer.steps()]
    codes = builder.chain(f"{path}.input", x, steps, quantizer.code_type, int(quantizer.zero))
    scale = quantizer(torch.zeros(1, *x.shape)).scale
    return codes, torch.as_tensor(scale, dtype=torch.float32).detach().reshape(-1)


def _minus_zero(quantizer: Quantizer) -> list[ChainStep]:
    return [("sub", "zero", float(quantizer.zero))] if quantizer.zero else []


def _float_sum(
    builder: GraphBuilder,
    name: str,
    x: Value,
    weight: NDArray[Any],
    bias: Tensor | None,
    attrs: dict[str, Any] | None,
    bits: Bits,
    why: str,
) -> Value:
    constants = {"weight": Constant.from_array(weight)} | ({"bias": Constant.from_array(array_of(bias))} if bias is not None else {})
    shape = (weight.shape[0],)
    return builder.node("linear_f32" if attrs is None else "conv2d_f32", name, [x], shape, attrs, constants, bits=str(bits), inexact=why)


def _output_shape(layer: nn.Module, x: Value) -> tuple[int, ...]:
    return (layer.weight.shape[0],)  # type: ignore[union-attr,return-value,index,operator]


def _conv_attrs(layer: nn.Conv2d) -> dict[str, Any]:
    if layer.padding_mode != "zeros":
        raise ExportError(f"padding_mode is {layer.padding_mode!r}; only 'zeros' can be exported")
    return conv_attrs(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)


def _emit_batch_norm(builder: GraphBuilder, layer: Any, path: str, x: Value) -> Value:
    a, b = layer.affine()
    return builder.chain(path, x, [("mul", "a", array_of(a)), ("add", "b", array_of(b))])


def _emit_avg_pool(builder: GraphBuilder, layer: Any, path: str, x: Value) -> Value:
    attrs = avg_pool_attrs(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
    return builder.node("avg_pool2d", builder.unique(path), [x], x.shape, attrs)


def _emit_adaptive_pool(builder: GraphBuilder, layer: Any, path: str, x: Value) -> Value:
    return builder.node("avg_pool2d", builder.unique(path), [x], x.shape, adaptive_pool_attrs(x.shape[1:], layer.output_size))


EMITTERS: dict[type[nn.Module], Callable[[GraphBuilder, Any, str, Value], Value]] = {
    lnn.Linear: _emit_weighted,
    lnn.Conv2d: _emit_weighted,
    lnn.BatchNorm1d: _emit_batch_norm,
    lnn.BatchNorm2d: _emit_batch_norm,
    lnn.AvgPool2d: _emit_avg_pool,
    lnn.AdaptiveAvgPool2d: _emit_adaptive_pool,
}
