"""What a graph means, in plain numpy: an interpreter that shares nothing with the engine. Codes and sums are int64, floats float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.format import Graph, Node

Array = np.ndarray[Any, Any]


def interpret(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph by name, in PyTorch's layout with the batch axis."""
    values: dict[str, Array] = dict(inputs)
    for node in graph.nodes:
        values[node.output] = MEANING[node.op](graph, node, *(values[name] for name in node.inputs))
    return values


def _data(graph: Graph, node: Node, role: str) -> Array:
    constant = graph.constants[node.constants[role]]
    return constant.data if constant.code is None else constant.codes().astype(np.int64)


def _channels(constant: Array, x: Array) -> Array:
    return constant.reshape(-1, *[1] * (x.ndim - 2))


STEPS = {
    "add": lambda x, k: x + k,
    "sub": lambda x, k: x - k,
    "mul": lambda x, k: x * k,
    "div": lambda x, k: x / k,
    "max": lambda x, k: np.where(x > k, x, k),
    "min": lambda x, k: np.where(x < k, x, k),
}


def chain(graph: Graph, node: Node, x: Array) -> Array:
    for step in node.attrs["steps"]:
        if step.op == "to_float":
            x = x.astype(np.float32)
        elif step.op == "round":
            x = np.rint(x)
        else:
            x = STEPS[step.op](x, _channels(_data(graph, node, step.operand), x))
        assert x.dtype == np.float32
    if node.attrs.get("code") is None:
        return x
    code, zero = CodeType.parse(node.attrs["code"]), node.attrs.get("zero", 0)
    if code.alphabet is Alphabet.ODD:
        return np.where(x >= 0, 1, -1).astype(np.int64)
    if code.alphabet is Alphabet.LOG2:
        return _powers(x, code)
    return np.clip(np.rint(x), code.lo - zero, code.hi - zero).astype(np.int64) + zero


def _powers(x: Array, code: CodeType) -> Array:
    """The larger of two neighbouring powers of two from their geometric mean on, in float32; a NaN has the lowest code."""
    size = np.zeros(x.shape, np.int64)
    for e in range(2 ** (code.bits - 1) - 1):
        size[np.abs(x) >= np.ldexp(np.sqrt(np.float32(2)), e - 1)] = 2**e
    return np.where(np.isnan(x), code.lo, np.where(x < 0, -size, size))


def _patches(x: Array, kernel: Any, attrs: Mapping[str, Any], fill: Any) -> Array:
    """(N, C, kh, kw, H', W'): what each output position sees."""
    top, left, bottom, right = attrs["padding"]
    (sh, sw), (dh, dw) = attrs["stride"], attrs.get("dilation", (1, 1))
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    height = (x.shape[2] - dh * (kernel[0] - 1) - 1) // sh + 1
    width = (x.shape[3] - dw * (kernel[1] - 1) - 1) // sw + 1
    rows = [
        [x[:, :, i * dh : i * dh + sh * (height - 1) + 1 : sh, j * dw : j * dw + sw * (width - 1) + 1 : sw] for j in range(kernel[1])]
        for i in range(kernel[0])
    ]
    return np.stack([np.stack(row, axis=2) for row in rows], axis=2)


def _conv(x: Array, weight: Array, attrs: Mapping[str, Any]) -> Array:
    groups = attrs["groups"]
    patches = _patches(x, weight.shape[2:], attrs, 0)
    n, channels, kh, kw, height, width = patches.shape
    patches = patches.reshape(n, groups, channels // groups, kh, kw, height, width)
    outputs = len(weight)
    weight = weight.reshape(groups, outputs // groups, *weight.shape[1:])
    return np.einsum("ngcijhw,gocij->ngohw", patches, weight).reshape(n, outputs, height, width)


def _real(graph: Graph, node: Node, x: Array) -> Array:
    """Codes less their zero."""
    return x - graph.types[node.inputs[0]].zero


def conv2d(graph: Graph, node: Node, x: Array) -> Array:
    return _conv(_real(graph, node, x), _data(graph, node, "weight"), node.attrs)


def linear(graph: Graph, node: Node, x: Array) -> Array:
    return _real(graph, node, x) @ _data(graph, node, "weight").T


def _bias(graph: Graph, node: Node, x: Array) -> Array:
    return x + _channels(_data(graph, node, "bias").astype(np.float64), x) if "bias" in node.constants else x


def conv2d_f32(graph: Graph, node: Node, x: Array) -> Array:
    return _bias(graph, node, _conv(x.astype(np.float64), _data(graph, node, "weight").astype(np.float64), node.attrs)).astype(np.float32)


def linear_f32(graph: Graph, node: Node, x: Array) -> Array:
    return _bias(graph, node, x.astype(np.float64) @ _data(graph, node, "weight").astype(np.float64).T).astype(np.float32)


def threshold(graph: Graph, node: Node, x: Array) -> Array:
    code = CodeType.parse(node.attrs["code"])
    thresholds, direction = _data(graph, node, "thresholds"), _data(graph, node, "direction")
    level = np.zeros(x.shape, np.int64)
    for column in thresholds.T.astype(np.int64):
        reached = np.where(_channels(direction, x) > 0, x >= _channels(column, x), x <= _channels(column, x))
        level += reached
    return np.asarray(code.levels)[level]


def max_pool2d(graph: Graph, node: Node, x: Array) -> Array:
    lowest = -np.inf if x.dtype.kind == "f" else -(2**40)
    return _patches(x, node.attrs["kernel"], node.attrs, lowest).max(axis=(2, 3))


def avg_pool2d(graph: Graph, node: Node, x: Array) -> Array:
    patches = _patches(x, node.attrs["kernel"], node.attrs, np.float32(0))
    total = np.zeros(patches.shape[:2] + patches.shape[4:], np.float32)
    for i in range(patches.shape[2]):
        for j in range(patches.shape[3]):
            total = total + patches[:, :, i, j]
    return total / np.float32(node.attrs["divisor"])


def pad2d(graph: Graph, node: Node, x: Array) -> Array:
    top, left, bottom, right = node.attrs["padding"]
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=node.attrs["value"])


def resize2d(graph: Graph, node: Node, x: Array) -> Array:
    rows, columns = _data(graph, node, "rows"), _data(graph, node, "columns")
    if "row_weights" not in node.constants:
        return x[:, :, rows][..., columns]
    down, right = _data(graph, node, "row_weights").reshape(-1, 1), _data(graph, node, "column_weights")
    below, beside = np.minimum(rows + 1, x.shape[2] - 1), np.minimum(columns + 1, x.shape[3] - 1)
    x = x[:, :, rows] + down * (x[:, :, below] - x[:, :, rows])
    return x[..., columns] + right * (x[..., beside] - x[..., columns])


def _of_rows(meaning: Any) -> Any:
    """An operator on images, for (N, C, L) too: images of one row."""

    def run(graph: Graph, node: Node, x: Array) -> Array:
        return meaning(graph, node, x[:, :, None])[:, :, 0] if x.ndim == 3 else meaning(graph, node, x)

    return run


MEANING = {
    "chain": chain,
    "linear": linear,
    "conv2d": _of_rows(conv2d),
    "linear_f32": linear_f32,
    "conv2d_f32": _of_rows(conv2d_f32),
    "threshold": threshold,
    "max_pool2d": _of_rows(max_pool2d),
    "avg_pool2d": _of_rows(avg_pool2d),
    "pad2d": _of_rows(pad2d),
    "resize2d": _of_rows(resize2d),
    "add": lambda graph, node, a, b: a + b,
    "concat": lambda graph, node, *x: np.concatenate(x, axis=1),
    "flatten": lambda graph, node, x: x.reshape(len(x), math.prod(x.shape[1:])),
}
