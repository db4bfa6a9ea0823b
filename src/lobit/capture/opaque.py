"""Each lobit layer as one node: inside `opaque_layers` a layer's forward is the operator ``lobit::layer(x, path)``.

So capture never takes a layer's arithmetic apart: it finds the module by its path and emits what that module means. The operator exists for tracing
only and is not on the training path, where it would block fusion.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit import nn as lnn
from lobit.capture.refused import refuse, why_refused

Shape = Callable[[Any, Tensor], Tensor]
_layers: ContextVar[Mapping[str, nn.Module]] = ContextVar("lobit_opaque_layers")


def _product_shape(layer: lnn.QuantizedLayer, x: Tensor) -> Tensor:
    return layer.product(layer.pad(x), x.new_empty(layer.weight.shape))


def _avg_shape(layer: Any, x: Tensor) -> Tensor:
    pool = F.avg_pool1d if isinstance(layer, nn.AvgPool1d) else F.avg_pool2d
    return pool(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)


def _adaptive_shape(layer: Any, x: Tensor) -> Tensor:
    pool = F.adaptive_avg_pool1d if isinstance(layer, nn.AdaptiveAvgPool1d) else F.adaptive_avg_pool2d
    return pool(x, layer.output_size)


def _resize_shape(layer: lnn.Upsample, x: Tensor) -> Tensor:
    return nn.Upsample.forward(layer, x)


def _global_shape(layer: nn.Module, x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-2])


def _same_shape(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.empty_like(x)


OPAQUE: dict[type[nn.Module], Shape] = {
    lnn.Linear: _product_shape,
    lnn.Conv1d: _product_shape,
    lnn.Conv2d: _product_shape,
    lnn.BatchNorm1d: _same_shape,
    lnn.BatchNorm2d: _same_shape,
    lnn.ShiftBatchNorm1d: _same_shape,
    lnn.ShiftBatchNorm2d: _same_shape,
    lnn.RPReLU: _same_shape,
    lnn.AvgPool1d: _avg_shape,
    lnn.AvgPool2d: _avg_shape,
    lnn.AdaptiveAvgPool1d: _adaptive_shape,
    lnn.AdaptiveAvgPool2d: _adaptive_shape,
    lnn.GlobalAvgPool2d: _global_shape,
    lnn.Upsample: _resize_shape,
}
"""The classes that stay whole, with the operation of PyTorch that has their output shape."""


@torch.library.custom_op("lobit::layer", mutates_args=())
def layer_op(x: Tensor, path: str) -> Tensor:
    """The original forward of the layer at ``path``."""
    layer = _layers.get()[path]
    return type(layer).forward(layer, x).clone()  # type: ignore[no-any-return]  # an operator may not return its own input


@layer_op.register_fake
def _layer_shape(x: Tensor, path: str) -> Tensor:
    layer = _layers.get()[path]
    return OPAQUE[layer_class(layer)](layer, x)


def layer_class(layer: nn.Module) -> type[nn.Module]:
    """The class of `OPAQUE` that a layer belongs to."""
    return next(kind for kind in OPAQUE if isinstance(layer, kind))


def is_opaque(module: nn.Module) -> bool:
    """Whether a module runs the forward of a class of `OPAQUE`.

    A subclass with a forward of its own, a patched instance, and a linear or conv layer without quantizers do not: they are traced.
    """
    if not isinstance(module, tuple(OPAQUE)) or "forward" in vars(module) or type(module).forward is not layer_class(module).forward:
        return False
    return not isinstance(module, lnn.QuantizedLayer) or has_quantizer(module)


def has_quantizer(module: lnn.QuantizedLayer) -> bool:
    """Whether a lobit linear or conv layer quantizes its weights or its input."""
    return module.weight_quantizer is not None or module.input_quantizer is not None


def _quantizes_only_gradients(module: nn.Module) -> TypeGuard[lnn.QuantizedLayer]:
    return isinstance(module, lnn.QuantizedLayer) and module.is_quantized and not has_quantizer(module)


@contextlib.contextmanager
def opaque_layers(model: nn.Module) -> Iterator[Mapping[str, nn.Module]]:
    """Make every lobit layer of a model opaque while the block runs; yields the layers by path.

    One that has no place in a file refuses to run, by name. One that quantizes gradients alone runs as the float layer that it is in eval. All is put back
    whatever happens.
    """
    modules = dict(model.named_modules())
    layers = {path: module for path, module in modules.items() if is_opaque(module)}
    refused = {path: module for path, module in modules.items() if why_refused(module) and "forward" not in vars(module)}
    gradients = {module: module.gradient_quantizer for module in modules.values() if _quantizes_only_gradients(module)}
    token = _layers.set(layers)
    try:
        for layer in gradients:
            layer.gradient_quantizer = None
        for path, layer in layers.items():
            vars(layer)["forward"] = partial(_call, path)
        for path, layer in refused.items():
            vars(layer)["forward"] = partial(refuse, path, layer)
        yield layers
    finally:
        for layer in (*layers.values(), *refused.values()):
            vars(layer).pop("forward", None)
        for layer, quantizer in gradients.items():
            layer.gradient_quantizer = quantizer
        _layers.reset(token)


def _call(path: str, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
    return layer_op(input, path)  # type: ignore[no-any-return]
