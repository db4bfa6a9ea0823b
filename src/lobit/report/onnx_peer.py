"""A float network as an ONNX file, written without torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lobit.report.floatnet import FloatNet, FloatOp

RANKS = {"flatten": 2, "linear": 2, "lift": 4, "drop": 3}
OPSET, IR = 17, 8
"""What ONNX Runtime of any age still in use reads."""


class _Writer:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names = (f"c{index}" for index in itertools.count())

    def constant(self, array: NDArray[Any]) -> str:
        name = next(self._names)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attrs: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attrs))


def write_onnx(net: FloatNet, path: Path) -> None:
    """Write a float network; its batch axis is called N.

    Parameters
    ----------
    net : FloatNet
    path : Path
    """
    writer = _Writer()
    ranks = {name: len(shape) + 1 for name, shape in net.inputs.items()}
    for op in net.ops:
        ranks[op.output] = RANKS.get(op.op, ranks[op.inputs[0]])
        WRITE[op.op](writer, op, ranks[op.output])
    names = [f"y{index}" for index in range(len(net.outputs))]
    for name, made in zip(names, net.outputs, strict=True):
        writer.node("Identity", [made], name)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in net.inputs.items()]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *[None] * (ranks[made] - 1)])
        for name, made in zip(names, net.outputs, strict=True)
    ]
    graph = helper.make_graph(writer.nodes, "float", inputs, outputs, writer.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="lobit")
    onnx.save(model, str(path))


def _linear(writer: _Writer, op: FloatOp, rank: int) -> None:
    arrays = [writer.constant(op.arrays[role]) for role in ("weight", "bias")]
    writer.node("Gemm", [op.inputs[0], *arrays], op.output, transB=1)


def _conv2d(writer: _Writer, op: FloatOp, rank: int) -> None:
    arrays = [writer.constant(op.arrays[role]) for role in ("weight", "bias")]
    kernel = list(op.arrays["weight"].shape[2:])
    window = {"strides": list(op.attrs["stride"]), "pads": list(op.attrs["padding"]), "dilations": list(op.attrs["dilation"])}
    writer.node("Conv", [op.inputs[0], *arrays], op.output, kernel_shape=kernel, group=op.attrs["groups"], **window)


def _affine(writer: _Writer, op: FloatOp, rank: int) -> None:
    a, b = (writer.constant(_per_channel(op.arrays[role], rank)) for role in ("a", "b"))
    writer.node("Mul", [op.inputs[0], a], f"{op.output}.a")
    writer.node("Add", [f"{op.output}.a", b], op.output)


def _clamp(writer: _Writer, op: FloatOp, rank: int) -> None:
    low, high = op.arrays["low"], op.arrays["high"]
    if len(low) > 1 or len(high) > 1:
        writer.node("Max", [op.inputs[0], writer.constant(_per_channel(low, rank))], f"{op.output}.low")
        writer.node("Min", [f"{op.output}.low", writer.constant(_per_channel(high, rank))], op.output)
    elif low[0] == 0 and np.isposinf(high[0]):
        writer.node("Relu", [op.inputs[0]], op.output)
    else:
        ends = [writer.constant(end.reshape(())) if np.isfinite(end[0]) else "" for end in (low, high)]
        writer.node("Clip", [op.inputs[0], *ends], op.output)


def _max_pool2d(writer: _Writer, op: FloatOp, rank: int) -> None:
    window = {"strides": list(op.attrs["stride"]), "pads": list(op.attrs["padding"]), "dilations": list(op.attrs["dilation"])}
    writer.node("MaxPool", [op.inputs[0]], op.output, kernel_shape=list(op.attrs["kernel"]), **window)


def _avg_pool2d(writer: _Writer, op: FloatOp, rank: int) -> None:
    kernel = list(op.attrs["kernel"])
    window = {"strides": list(op.attrs["stride"]), "pads": list(op.attrs["padding"]), "kernel_shape": kernel, "count_include_pad": 1}
    area = kernel[0] * kernel[1]
    same = area == op.attrs["divisor"]
    writer.node("AveragePool", [op.inputs[0]], op.output if same else f"{op.output}.mean", **window)
    if not same:
        factor = writer.constant(np.array(area / op.attrs["divisor"], np.float32))
        writer.node("Mul", [f"{op.output}.mean", factor], op.output)


def _add(writer: _Writer, op: FloatOp, rank: int) -> None:
    writer.node("Add", list(op.inputs), op.output)


def _flatten(writer: _Writer, op: FloatOp, rank: int) -> None:
    writer.node("Flatten", list(op.inputs), op.output, axis=1)


def _pad2d(writer: _Writer, op: FloatOp, rank: int) -> None:
    top, left, bottom, right = op.attrs["padding"]
    pads = writer.constant(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    writer.node("Pad", [op.inputs[0], pads, writer.constant(np.array(op.attrs["value"], np.float32))], op.output, mode="constant")


def _resize2d(writer: _Writer, op: FloatOp, rank: int) -> None:
    tables, way = op.attrs["tables"], op.attrs["way"]
    if way is not None:
        mode = {"nearest": "asymmetric", "bilinear": "half_pixel", "corners": "align_corners"}[way]
        settings = {"mode": "nearest", "nearest_mode": "floor"} if way == "nearest" else {"mode": "linear"}
        size = writer.constant(np.array([len(tables["rows"]), len(tables["columns"])], np.int64))
        writer.node("Shape", [op.inputs[0]], f"{op.output}.outer", start=0, end=2)
        writer.node("Concat", [f"{op.output}.outer", size], f"{op.output}.size", axis=0)
        writer.node("Resize", [op.inputs[0], "", "", f"{op.output}.size"], op.output, coordinate_transformation_mode=mode, **settings)
        return
    x = op.inputs[0]
    for axis, (at, share), made in ((2, ("rows", "row_weights"), f"{op.output}.rows"), (3, ("columns", "column_weights"), op.output)):
        x = _along(writer, x, made, axis, op.attrs["size"][axis - 2], tables[at].astype(np.int64), tables.get(share))


def _along(writer: _Writer, x: str, made: str, axis: int, size: int, places: NDArray[Any], shares: NDArray[Any] | None) -> str:
    """One axis by a table: the places, and mixed with the next ones where there are shares."""
    writer.node("Gather", [x, writer.constant(places)], made if shares is None else f"{made}.a", axis=axis)
    if shares is None:
        return made
    writer.node("Gather", [x, writer.constant(np.minimum(places + 1, size - 1))], f"{made}.b", axis=axis)
    weights = writer.constant(shares.reshape(-1, *[1] * (3 - axis)).astype(np.float32))
    writer.node("Sub", [f"{made}.b", f"{made}.a"], f"{made}.change")
    writer.node("Mul", [f"{made}.change", weights], f"{made}.share")
    writer.node("Add", [f"{made}.a", f"{made}.share"], made)
    return made


def _concat(writer: _Writer, op: FloatOp, rank: int) -> None:
    writer.node("Concat", list(op.inputs), op.output, axis=1)


def _lift(writer: _Writer, op: FloatOp, rank: int) -> None:
    writer.node("Unsqueeze", [op.inputs[0], writer.constant(np.array([2], np.int64))], op.output)


def _drop(writer: _Writer, op: FloatOp, rank: int) -> None:
    writer.node("Squeeze", [op.inputs[0], writer.constant(np.array([2], np.int64))], op.output)


def _per_channel(array: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    return array.reshape(-1, *[1] * (rank - 2))


WRITE: dict[str, Callable[[_Writer, FloatOp, int], None]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "affine": _affine,
    "clamp": _clamp,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "add": _add,
    "flatten": _flatten,
    "pad2d": _pad2d,
    "resize2d": _resize2d,
    "lift": _lift,
    "drop": _drop,
    "concat": _concat,
}
