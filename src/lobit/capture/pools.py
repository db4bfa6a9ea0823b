"""Pools and reductions of PyTorch, over images and rows."""

from __future__ import annotations

from typing import Any

from lobit.capture.builder import Value
from lobit.capture.layers import elements
from lobit.capture.use import Use
from lobit.capture.windows import adaptive_pool_attrs, avg_pool_attrs, lifted, max_pool_attrs
from lobit.format.geometry import image_size

FOREIGN_POOL = "PyTorch's own average pool; its sum depends on the layout (lobit.quantize_ replaces the module nn.AvgPool2d)"


def axes(use: Use, *settings: tuple[str, int]) -> list[Any]:
    """Settings of a window by name, for two axes: where the operator has one, with this value for the other."""
    one = len(use.shape) == 2
    return [lifted(use.args[name], unit) if one else use.args[name] for name, unit in settings]


def max_pool(use: Use) -> Value:
    """``max_pool1d`` and ``max_pool2d``."""
    x = use.first()
    kernel, stride, padding, dilation = axes(use, ("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
    attrs = max_pool_attrs(image_size(x.shape), kernel, stride, padding, dilation, use.args["ceil_mode"])
    return use.builder.node("max_pool2d", use.builder.unique(use.name), [x], use.shape, attrs)


def _foreign_pool(use: Use, attrs: dict[str, Any], shape: tuple[int, ...]) -> Value:
    x = use.first()
    name = use.builder.unique(use.name)
    use.builder.layer(name, "avg_pool2d", "", x, FOREIGN_POOL)
    return use.builder.node("avg_pool2d", name, [x], shape, attrs, inexact=FOREIGN_POOL)


def avg_pool(use: Use) -> Value:
    """``avg_pool1d`` and ``avg_pool2d``."""
    a = use.args
    kernel, stride, padding = axes(use, ("kernel_size", 1), ("stride", 1), ("padding", 0))
    return _foreign_pool(
        use, avg_pool_attrs(kernel, stride, padding, a["ceil_mode"], a["count_include_pad"], a.get("divisor_override")), use.shape
    )


def adaptive_avg_pool(use: Use) -> Value:
    """``adaptive_avg_pool1d`` and ``2d``."""
    return _foreign_pool(use, adaptive_pool_attrs(image_size(use.first().shape), axes(use, ("output_size", 1))[0]), use.shape)


def _over_image(use: Use) -> tuple[Value, dict[str, Any]]:
    """The window that is the whole image, for a reduction over all axes but the channels'."""
    x = use.first()
    rank = len(x.shape) + 1
    if rank < 3 or sorted(axis % rank for axis in use.args["dim"] or []) != list(range(2, rank)):
        what = "height and width, dim=(2, 3)" if rank == 4 else "the length of (N, C, L), dim=2"
        raise use.fail(f"of an input (N, {', '.join(map(str, x.shape))}) it is supported over {what}")
    size = list(image_size(x.shape))
    return x, {"kernel": size, "stride": size, "padding": [0, 0, 0, 0]}


def _without_axes(use: Use, y: Value) -> Value:
    """The one pixel of each channel, as an image or as plain channels."""
    return y if use.args["keepdim"] else use.builder.node("flatten", use.builder.unique(f"{y.name}.flat"), [y], y.shape[:1])


def mean(use: Use) -> Value:
    """A mean over all axes but the channels."""
    x, attrs = _over_image(use)
    shape = (x.shape[0], *[1] * (len(x.shape) - 1))
    return _without_axes(use, _foreign_pool(use, {**attrs, "divisor": elements(x.shape[1:])}, shape))


def amax(use: Use) -> Value:
    """A maximum over all axes but the channels."""
    x, attrs = _over_image(use)
    shape = (x.shape[0], *[1] * (len(x.shape) - 1))
    return _without_axes(use, use.builder.node("max_pool2d", use.builder.unique(use.name), [x], shape, {**attrs, "dilation": [1, 1]}))


def adaptive_max_pool(use: Use) -> Value:
    """``adaptive_max_pool1d`` and ``2d``; their indices are not made."""
    x = use.first()
    attrs = adaptive_pool_attrs(image_size(x.shape), axes(use, ("output_size", 1))[0])
    del attrs["divisor"]
    return use.builder.node("max_pool2d", use.builder.unique(use.name), [x], use.shape, {**attrs, "dilation": [1, 1]})
