"""A second, plain reading of docs/architecture.md: runs a graph of the exact class in numpy, one small function an operator.

Slow and obvious on purpose: integers are int64, loops are loops. Golden outputs come from here, not from the engine they judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.format import Graph, Node, ValueType

Array = NDArray[Any]
STEPS: dict[str, Callable[..., Array]] = {
    "to_float": lambda x: x.astype(np.float32),
    "round": np.rint,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def run(graph: Graph, x: Array) -> Array:
    """The first output for a batch of the first input, shape ``(N, *input shape)``."""
    values = {next(iter(graph.inputs)): x.astype(np.float32)}
    for node in graph.nodes:
        values[node.output] = OPERATIONS[node.op](graph, node, *(values[name] for name in node.inputs))
    return values[graph.outputs[0]]


def _constant(graph: Graph, node: Node, role: str) -> Array:
    constant = graph.constants[node.constants[role]]
    return constant.data if constant.code is None else constant.codes().astype(np.int64)


def _along_channels(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _real(graph: Graph, node: Node, x: Array) -> Array:
    """Codes minus their zero."""
    return x.astype(np.int64) - graph.types[node.inputs[0]].zero


def _chain(graph: Graph, node: Node, x: Array) -> Array:
    for step in node.attrs["steps"]:
        operands = () if step.operand is None else (_along_channels(_constant(graph, node, step.operand), x),)
        x = STEPS[step.op](x, *operands)
        assert x.dtype == np.float32
    made: ValueType = graph.types[node.output]
    if made.code is None:
        return x
    if made.code.alphabet is Alphabet.ODD:
        return np.where(x >= 0, 1, -1)
    if made.code.alphabet is Alphabet.LOG2:
        root = np.float32(1.4142135)  # a power of two begins at the one before it, times the root of two
        size = sum((np.abs(x) >= root * np.float32(p) / 2) * (p - p // 2) for p in made.code.levels if p > 0)
        return np.asarray(np.where(x < 0, -size, size), np.int64)
    return np.clip(np.rint(x), made.code.lo - made.zero, made.code.hi - made.zero).astype(np.int64) + made.zero


def _shape(graph: Graph, node: Node) -> tuple[int, int, int]:
    """Of the output; ``(C, L)`` is ``(C, 1, L)``."""
    channels, *size = graph.types[node.output].shape
    return (channels, 1, size[0]) if len(size) == 1 else (channels, size[0], size[1])


def _linear(graph: Graph, node: Node, x: Array) -> Array:
    return _real(graph, node, x) @ _constant(graph, node, "weight").T


def _conv2d(graph: Graph, node: Node, x: Array) -> Array:
    weight, attrs = _constant(graph, node, "weight"), node.attrs
    top, left, bottom, right = attrs["padding"]
    padded = np.pad(_real(graph, node, x), ((0, 0), (0, 0), (top, bottom), (left, right)))
    channels, height, width = _shape(graph, node)
    out = np.zeros((len(x), channels, height, width), np.int64)
    per_group, inputs = channels // attrs["groups"], weight.shape[1]
    for o, i, j in np.ndindex(channels, height, width):
        first = o // per_group * inputs
        rows = [i * attrs["stride"][0] + a * attrs["dilation"][0] for a in range(weight.shape[2])]
        columns = [j * attrs["stride"][1] + b * attrs["dilation"][1] for b in range(weight.shape[3])]
        patch = padded[:, first : first + inputs][:, :, rows][:, :, :, columns]
        out[:, o, i, j] = (patch * weight[o]).sum(axis=(1, 2, 3))
    return out


def _threshold(graph: Graph, node: Node, x: Array) -> Array:
    thresholds, direction = _constant(graph, node, "thresholds"), _constant(graph, node, "direction")
    code: CodeType | None = graph.types[node.output].code
    assert code is not None
    level = np.zeros(x.shape, np.int64)
    for column in thresholds.T:
        above = x >= _along_channels(column, x)
        below = x <= _along_channels(column, x)
        level += np.where(_along_channels(direction, x) > 0, above, below)
    return code.lo + level * code.spacing


def _windows(graph: Graph, node: Node, x: Array, fill: Any) -> Array:
    """Windows of a pool in raster order: shape ``(taps, N, C, H', W')``."""
    attrs = node.attrs
    top, left, bottom, right = attrs["padding"]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    _, height, width = _shape(graph, node)
    taps = []
    for a, b in np.ndindex(*attrs["kernel"]):
        i, j = a * attrs.get("dilation", (1, 1))[0], b * attrs.get("dilation", (1, 1))[1]
        rows, columns = i + np.arange(height) * attrs["stride"][0], j + np.arange(width) * attrs["stride"][1]
        taps.append(padded[:, :, rows][:, :, :, columns])
    return np.stack(taps)


def _max_pool2d(graph: Graph, node: Node, x: Array) -> Array:
    return _windows(graph, node, x, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min).max(axis=0)


def _avg_pool2d(graph: Graph, node: Node, x: Array) -> Array:
    total = np.float32(0)
    for tap in _windows(graph, node, x, 0):
        total = total + tap
    return total / np.float32(node.attrs["divisor"])


def _pad2d(graph: Graph, node: Node, x: Array) -> Array:
    top, left, _, _ = node.attrs["padding"]
    out = np.full((len(x), *_shape(graph, node)), node.attrs["value"], x.dtype)
    out[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return out


def _resize2d(graph: Graph, node: Node, x: Array) -> Array:
    tables = {role: graph.constants[name].data for role, name in node.constants.items()}
    out = np.empty((len(x), *_shape(graph, node)), x.dtype)
    _, _, height, width = x.shape
    for i, j in np.ndindex(*out.shape[2:]):
        top, left = int(tables["rows"][i]), int(tables["columns"][j])
        out[:, :, i, j] = x[:, :, top, left]
        if "row_weights" in tables:
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = tables["row_weights"][i], tables["column_weights"][j]
            first = x[:, :, top, left] + down * (x[:, :, bottom, left] - x[:, :, top, left])
            second = x[:, :, top, right] + down * (x[:, :, bottom, right] - x[:, :, top, right])
            out[:, :, i, j] = first + across * (second - first)
    return out


def _of_rows(operation: Callable[..., Array]) -> Callable[..., Array]:
    """An operator on images that takes (N, C, L) as well."""
    return lambda graph, node, x: operation(graph, node, x[:, :, None])[:, :, 0] if x.ndim == 3 else operation(graph, node, x)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "chain": _chain,
    "linear": _linear,
    "conv2d": _of_rows(_conv2d),
    "threshold": _threshold,
    "max_pool2d": _of_rows(_max_pool2d),
    "avg_pool2d": _of_rows(_avg_pool2d),
    "pad2d": _of_rows(_pad2d),
    "resize2d": _of_rows(_resize2d),
    "concat": lambda graph, node, *parts: np.concatenate(parts, axis=1),
    "add": lambda graph, node, a, b: a + b,
    "flatten": lambda graph, node, x: x.reshape(len(x), -1),
}
