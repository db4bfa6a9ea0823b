"""What PyTorch's operators become: one table from names to emitters. An operator that is not in it is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from lobit.capture import pools, resize
from lobit.capture.builder import GraphBuilder, Value
from lobit.capture.layers import check_rank, elements, float_product, floats
from lobit.capture.use import Use, module_path, result, where
from lobit.capture.windows import conv_attrs
from lobit.errors import ExportError

FOREIGN_NORM = "PyTorch's own batch norm; it fuses product and sum on some CPUs (lobit.quantize_ replaces the module)"


def emit_operator(node: fx.Node, builder: GraphBuilder, values: Mapping[fx.Node, Value], tensors: Mapping[str, Tensor]) -> Value:
    """Append what an operator of PyTorch means.

    Raises
    ------
    ExportError
        For an operator that is not in the table, or a use of one that is not supported.
    """
    emit = OPERATORS.get(str(node.target))
    if emit is None:
        known = ", ".join(sorted({name.split(".")[1] for name in OPERATORS}))
        raise ExportError(
            f"operator {node.target} {where(node)} has no place in a packed network. lobit exports its own layers and: {known}. "
            "Keep this part outside the exported model"
        )
    use = Use(node, builder, values, tensors, _named(node))
    if result(node).dtype is not torch.float32:
        raise use.fail(f"it makes {result(node).dtype}; a packed network computes torch.float32")
    shapes = [result(given) for given in node.all_input_nodes if given in values]
    rows = tuple(result(node).shape[:1])
    if shapes and tuple(map(str, rows)) != (str(shapes[0].shape[0]),):
        raise use.fail(f"it changes the batch axis, from {shapes[0].shape[0]} to {rows[0] if rows else 'none'}; keep axis 0 as it is")
    try:
        return emit(use)
    except ValueError as error:
        raise use.fail(str(error)) from None


def _named(node: fx.Node) -> dict[str, Any]:
    """Arguments by name, defaults filled in."""
    target: Any = node.target
    schema = target._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def _same(use: Use) -> Value:
    return use.first()


def _flatten(use: Use) -> Value:
    x = _same(use)
    if use.shape == x.shape:
        return x
    if len(x.shape) < 2 or use.shape != (elements(x.shape),):
        raise use.fail(
            f"it reshapes (N, {', '.join(map(str, x.shape))}) to (N, {', '.join(map(str, use.shape))}); only flattening is supported"
        )
    return use.builder.node("flatten", use.builder.unique(use.name), [x], use.shape)


def _clip(low: str | float | None, high: str | float | None) -> Callable[[Use], Value]:
    def emit(use: Use) -> Value:
        ends = [use.args[end] if isinstance(end, str) else end for end in (low, high)]
        return use.chain(
            *((op, float(end)) for op, end in zip(("max", "min"), ends, strict=True) if end is not None and math.isfinite(end))
        )

    return emit


def _prelu(use: Use) -> Value:
    slope = use.tensor("weight")
    assert slope is not None
    return _two_slopes(use, floats(slope.reshape(-1)))


def _leaky_relu(use: Use) -> Value:
    return _two_slopes(use, float(use.args["negative_slope"]))


def _two_slopes(use: Use, slope: Any) -> Value:
    """``max(x, 0) + min(x, 0) * slope``: one side is zero, so the sum is exact, and equal to PyTorch's as a number (a zero may have the other sign)."""
    x, build = _same(use), use.builder
    above = build.chain(f"{use.name}.above", x, [("max", "zero", 0.0)])
    below = build.chain(f"{use.name}.below", x, [("min", "zero", 0.0), ("mul", "slope", slope)])
    return build.node("add", build.unique(use.name), [above, below], use.shape)


def _arithmetic(op: str) -> Callable[[Use], Value]:
    def emit(use: Use) -> Value:
        if use.args.get("alpha", 1) != 1:
            raise use.fail("alpha must be 1")
        other = use.args["other"]
        if isinstance(other, fx.Node) and other in use.values:
            return _add(use)
        if isinstance(use.args["self"], fx.Node) and use.args["self"] not in use.values and op in ("add", "mul"):
            raise use.fail("write the computed value first and the constant second")
        operand = _per_channel(use, other)
        if op == "div" and (operand == 0).any():
            raise use.fail("it divides by zero")
        return use.chain((op, operand))

    return emit


def _add(use: Use) -> Value:
    a, b = use.value("self"), use.value("other")
    if not str(use.node.target).startswith("aten.add."):
        raise use.fail("of two computed values only the sum is supported")
    if a.shape != b.shape:
        raise use.fail(f"it adds shapes {a.shape} and {b.shape}; they must be equal")
    return use.builder.node("add", use.builder.unique(use.name), [a, b], use.shape)


def _per_channel(use: Use, other: Any) -> Any:
    """A constant operand: a number, or a parameter with one value for each channel."""
    if not isinstance(other, fx.Node):
        return floats(torch.tensor(float(other)))
    tensor = use.tensor("other")
    assert tensor is not None
    x = use.value("self")
    axes = tuple(tensor.shape)
    wanted = (1,) * (len(x.shape) + 1 - len(axes)) + axes
    if tensor.numel() != 1 and (wanted[0] != 1 or wanted[1] != x.shape[0] or math.prod(wanted[2:]) != 1):
        raise use.fail(f"its constant has shape {axes}; it must be one value, or one for each of the {x.shape[0]} channels")
    return floats(tensor.reshape(-1))


def _pad(use: Use) -> Value:
    x, pads = _same(use), [int(n) for n in use.args["pad"]]
    if use.args.get("mode", "constant") != "constant":
        raise use.fail(f"mode is {use.args['mode']!r}; only 'constant' is supported")
    if len(x.shape) < 2 or any(pads[2 * (len(x.shape) - 1) :]) or min(pads) < 0:
        raise use.fail(f"pad is {pads} of an input (N, {', '.join(map(str, x.shape))}); height and width can be padded, and not cut")
    if not any(pads):
        return x
    left, right, top, bottom = (pads + [0] * 4)[:4]
    attrs = {"padding": [top, left, bottom, right], "value": float(use.args["value"] or 0.0)}
    return use.builder.node("pad2d", use.builder.unique(use.name), [x], use.shape, attrs)


def _cat(use: Use) -> Value:
    parts = [use.computed(given, "tensors") for given in use.args["tensors"]]
    axes = len(use.shape) + 1
    if use.args["dim"] % axes != 1:
        raise use.fail(f"dim is {use.args['dim']}; only channels, dim 1, can be joined")
    return parts[0] if len(parts) == 1 else use.builder.node("concat", use.builder.unique(use.name), parts, use.shape)


def _batch_norm(use: Use) -> Value:
    mean, var = use.tensor("running_mean"), use.tensor("running_var")
    if mean is None or var is None:
        raise use.fail("a batch norm without running statistics normalizes by the batch itself; use track_running_stats=True")
    weight, bias = use.tensor("weight"), use.tensor("bias")
    a = (var.double() + use.args["eps"]).rsqrt() * (1.0 if weight is None else weight.double())
    b = (0.0 if bias is None else bias.double()) - mean.double() * a
    use.builder.layer(use.name, "batch norm", "", use.value("input"), FOREIGN_NORM)
    return use.chain(("mul", floats(a)), ("add", floats(b)), inexact=FOREIGN_NORM)


def _linear(use: Use) -> Value:
    return _product(use, "linear", use.value("input"), {})


def _conv(use: Use) -> Value:
    weight = use.tensor("weight")
    assert weight is not None
    a = use.args
    return _product(use, "conv2d", use.value("input"), conv_attrs(weight.shape[2:], a["stride"], a["padding"], a["dilation"], a["groups"]))


def _product(use: Use, op: str, x: Value, attrs: dict[str, Any]) -> Value:
    weight = use.tensor("weight")
    assert weight is not None
    check_rank(f"operator {use.node.target} {where(use.node)}", weight, x)
    return float_product(
        use.builder, module_path(use.node).rstrip(".") or use.node.name, op, x, use.shape, attrs, weight, use.tensor("bias")
    )


OPERATORS: dict[str, Callable[[Use], Value]] = {
    **dict.fromkeys(
        ("aten.clone.default", "aten.dropout.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default"), _same
    ),
    **dict.fromkeys(("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints"), _flatten),
    **dict.fromkeys(("aten.squeeze.dims", "aten.squeeze.dim", "aten.squeeze.default"), _flatten),
    "aten.relu.default": _clip(0.0, None),
    "aten.relu6.default": _clip(0.0, 6.0),
    "aten.hardtanh.default": _clip("min_val", "max_val"),
    "aten.clamp.default": _clip("min", "max"),
    "aten.clamp_min.default": _clip("min", None),
    "aten.clamp_max.default": _clip(None, "max"),
    "aten.prelu.default": _prelu,
    "aten._prelu_kernel.default": _prelu,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.add.Tensor": _arithmetic("add"),
    "aten.add.Scalar": _arithmetic("add"),
    "aten.sub.Tensor": _arithmetic("sub"),
    "aten.sub.Scalar": _arithmetic("sub"),
    "aten.mul.Tensor": _arithmetic("mul"),
    "aten.mul.Scalar": _arithmetic("mul"),
    "aten.div.Tensor": _arithmetic("div"),
    "aten.div.Scalar": _arithmetic("div"),
    "aten.cat.default": _cat,
    "aten.concat.default": _cat,
    "aten.concatenate.default": _cat,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    **dict.fromkeys(("aten.max_pool1d.default", "aten.max_pool2d.default"), pools.max_pool),
    **resize.OPERATORS,
    **dict.fromkeys(("aten.avg_pool1d.default", "aten.avg_pool2d.default"), pools.avg_pool),
    **dict.fromkeys(("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default"), pools.adaptive_avg_pool),
    **dict.fromkeys(("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default"), pools.adaptive_max_pool),
    "aten.mean.dim": pools.mean,
    "aten.amax.default": pools.amax,
    "aten.batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.linear.default": _linear,
    **dict.fromkeys((f"aten.conv{axes}d.{overload}" for axes in (1, 2) for overload in ("default", "padding")), _conv),
}
"""By PyTorch's name of the operator."""
