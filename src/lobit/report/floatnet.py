"""The float network of the same shape: what a user would deploy instead of a packed file, derived from its graph.

Products become float products with dequantized weights. The scale, bias and batch norm behind one are folded into its weights and bias. Rounding goes;
a clamp stays where codes clamp, a ReLU where they begin at zero. A threshold to one bit is a clamp of slope two: on integer sums it gives the very codes.

The values of codes are ``code - zero``, times a scale that is pushed on into the weights of the layers behind, so that no operation is left of it.
A quantizer that reads the network's own input goes altogether, its scale apart: a float network takes its image as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node
from lobit.format.geometry import image_size
from lobit.report.float_resize import way_of
from lobit.report.pieces import Piece, piece_of_chain, piece_of_threshold

Floats = NDArray[np.float32]
PRODUCTS = {"linear": "linear", "linear_f32": "linear", "conv2d": "conv2d", "conv2d_f32": "conv2d"}


@dataclass(frozen=True, slots=True)
class FloatOp:
    """One operator of a float network.

    Parameters
    ----------
    op : str
        ``lift`` (N, C, L) to (N, C, 1, L), ``drop`` back, ``linear``, ``conv2d`` (arrays ``weight``, ``bias``), ``affine`` (``a``, ``b``: x * a + b), ``clamp`` (``low``, ``high``), ``max_pool2d``,
        ``avg_pool2d``, ``pad2d``, ``resize2d`` (its tables, and the `lobit.report.float_resize.Way` that they follow), ``add``, ``concat`` or ``flatten``. Arrays other than weights have shape (1,) or (C,).
    inputs : tuple of str
    output : str
    attrs : mapping
        Windows, as in the graph.
    arrays : mapping of str to float32 ndarray
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FloatNet:
    """A float network: inputs with their shapes without the batch axis, operators in order, outputs."""

    inputs: Mapping[str, tuple[int, ...]]
    ops: tuple[FloatOp, ...]
    outputs: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for op in self.ops for array in op.arrays.values())


def float_net(graph: Graph) -> FloatNet:
    """The float network of a checked graph."""
    build = _Builder(graph)
    for node in graph.nodes:
        LOWER[PRODUCTS.get(node.op, node.op)](build, node)
    outputs = tuple(build.plain(name) for name in graph.outputs)
    return FloatNet(graph.inputs, tuple(build.ops), outputs)


def clamp_first(net: FloatNet) -> FloatNet:
    """With each clamp ahead of the max pool before it, which makes the same values: next to its product, where ONNX Runtime fuses it."""
    return _swapped(net, "max_pool2d", "clamp")


def pool_first(net: FloatNet) -> FloatNet:
    """With each max pool ahead of the clamp before it, which makes the same values: where nothing is fused, fewer of them are clamped."""
    return _swapped(net, "clamp", "max_pool2d")


def _swapped(net: FloatNet, first: str, second: str) -> FloatNet:
    """Exchange neighbours of two kinds where nothing else reads what lies between."""
    uses = Counter([name for op in net.ops for name in op.inputs] + list(net.outputs))
    ops = list(net.ops)
    for place in range(1, len(ops)):
        before, after = ops[place - 1], ops[place]
        if (before.op, after.op) == (first, second) and after.inputs == (before.output,) and uses[before.output] == 1:
            ops[place - 1] = replace(after, inputs=before.inputs, output=before.output)
            ops[place] = replace(before, inputs=(before.output,), output=after.output)
    return replace(net, ops=tuple(ops))


class _Builder:
    """Walks a graph once. ``values`` maps each of its values to a tensor of the float network and the scale that this lacks."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops: list[FloatOp] = []
        self.values: dict[str, tuple[str, float]] = {name: (name, 1.0) for name in graph.inputs}
        self.nodes = {node.output: node for node in graph.nodes}
        self.made: dict[str, FloatOp] = {}
        self.places: dict[str, int] = {}
        self.uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
        for name, shape in graph.inputs.items():
            if len(shape) == 2:  # as the graph has it, an image of one row
                self.values[name] = self.emit("lift", (name,)), 1.0

    def constant(self, node: Node, role: str) -> Constant:
        return self.graph.constants[node.constants[role]]

    def emit(self, op: str, inputs: tuple[str, ...], attrs: Mapping[str, Any] | None = None, **arrays: Floats) -> str:
        """Append an operator; return the tensor it makes."""
        name = f"t{len(self.ops)}"
        while name in self.graph.inputs:
            name = f"_{name}"
        self.made[name] = FloatOp(op, inputs, name, attrs or {}, arrays)
        self.places[name] = len(self.ops)
        self.ops.append(self.made[name])
        return name

    def keep(self, node: Node, tensor: str, scale: float = 1.0) -> None:
        self.values[node.output] = tensor, scale

    def plain(self, name: str) -> str:
        """A tensor of the value as the graph has it: codes with their zero, nothing left to multiply."""
        tensor, scale = self.values[name]
        zero = float(self.graph.types[name].zero)
        if scale != 1.0 or zero:
            tensor = self.emit("affine", (tensor,), a=np.array([scale], np.float32), b=np.array([zero], np.float32))
        return self.emit("drop", (tensor,)) if len(self.graph.types[name].shape) == 2 else tensor

    def behind_input(self, name: str) -> bool:
        """Whether a tensor is the network's input, or a view of it."""
        while name in self.made and self.made[name].op in ("lift", "flatten", "max_pool2d"):
            name = self.made[name].inputs[0]
        return name in self.graph.inputs

    def product_before(self, value: str, piece: Piece) -> int | None:
        """The place of the product that a piece can be folded into: nothing else reads what lies between."""
        while self.uses[value] == 1 and value in self.nodes:
            before = self.nodes[value]
            if before.op in PRODUCTS:
                return self.places[self.values[value][0]]
            if not (before.op == "max_pool2d" and piece.rises) and not (before.op == "flatten" and piece.uniform):
                return None
            value = before.inputs[0]
        return None

    def apply(self, node: Node, piece: Piece, *, codes: bool) -> None:
        """Append ``clamp(a x + b)``, in the shape that costs least."""
        tensor, _ = self.values[node.inputs[0]]
        scale = 1.0
        place = self.product_before(node.inputs[0], piece)
        if place is not None:
            self._fold(place, piece)
        elif codes and piece.is_scale:
            scale = float(piece.a[0])
            piece = piece.scaled(1.0 / scale)
            if self.behind_input(tensor):
                piece = piece.unclamped()
        elif not piece.is_identity:
            a, b = (array.astype(np.float32) for array in (piece.a, piece.b))
            tensor = self.emit("affine", (tensor,), a=a, b=b)
        piece = piece.shortened()
        if piece.clamps:
            tensor = self.emit("clamp", (tensor,), low=piece.low.astype(np.float32), high=piece.high.astype(np.float32))
        self.keep(node, tensor, scale)

    def _fold(self, place: int, piece: Piece) -> None:
        op = self.ops[place]
        weight, bias = op.arrays["weight"], op.arrays["bias"]
        a = np.broadcast_to(piece.a, len(weight))
        folded = (weight * a.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        self.ops[place] = replace(op, arrays={"weight": folded, "bias": (bias * a + piece.b).astype(np.float32)})


def _product(build: _Builder, node: Node) -> None:
    tensor, scale = build.values[node.inputs[0]]
    stored = build.constant(node, "weight")
    weight = (stored.data if stored.code is None else stored.codes()).astype(np.float32) * np.float32(scale)
    bias = build.constant(node, "bias").data if "bias" in node.constants else np.zeros(len(weight), np.float32)
    build.keep(node, build.emit(PRODUCTS[node.op], (tensor,), node.attrs, weight=weight, bias=bias))


def _chain(build: _Builder, node: Node) -> None:
    kind = build.graph.types[node.inputs[0]]
    steps = [
        (step.op, None if step.operand is None else build.constant(node, step.operand).data.astype(np.float64))
        for step in node.attrs["steps"]
    ]
    text = node.attrs.get("code")
    code = None if text is None else CodeType.parse(text)
    start = Piece.of(build.values[node.inputs[0]][1], kind.zero)
    build.apply(node, piece_of_chain(start, steps, code, node.attrs.get("zero", 0)), codes=code is not None)


def _threshold(build: _Builder, node: Node) -> None:
    code, zero = CodeType.parse(node.attrs["code"]), node.attrs.get("zero", 0)
    thresholds, direction = build.constant(node, "thresholds").data, build.constant(node, "direction").data
    build.apply(node, piece_of_threshold(thresholds, direction, code, zero), codes=True)


def _same(build: _Builder, node: Node) -> None:
    """Pools and flatten: what they do to values they do to scaled ones."""
    tensor, scale = build.values[node.inputs[0]]
    build.keep(node, build.emit(node.op, (tensor,), node.attrs), scale)


def _pad2d(build: _Builder, node: Node) -> None:
    """Codes are padded with the value that their code stands for, in the scale of the tensor."""
    tensor, scale = build.values[node.inputs[0]]
    value = float(node.attrs["value"] - build.graph.types[node.inputs[0]].zero)
    build.keep(node, build.emit("pad2d", (tensor,), {"padding": node.attrs["padding"], "value": value / scale}), scale)


def _resize2d(build: _Builder, node: Node) -> None:
    """Of scaled values, too: the shares of a mix add up to one."""
    tensor, scale = build.values[node.inputs[0]]
    tables = {role: build.constant(node, role).data for role in node.constants}
    size = image_size(build.graph.types[node.inputs[0]].shape)
    build.keep(node, build.emit("resize2d", (tensor,), {"tables": tables, "size": size, "way": way_of(tables, size)}), scale)


def _concat(build: _Builder, node: Node) -> None:
    """Tensors of one scale are joined as they are; others get theirs first."""
    found = [build.values[name] for name in node.inputs]
    scales = {scale for _, scale in found}
    common = scales.pop() if len(scales) == 1 else 1.0
    zero = np.zeros(1, np.float32)
    tensors = [name if scale == common else build.emit("affine", (name,), a=np.array([scale], np.float32), b=zero) for name, scale in found]
    build.keep(node, build.emit("concat", tuple(tensors)), common)


def _add(build: _Builder, node: Node) -> None:
    build.keep(node, build.emit("add", tuple(build.values[name][0] for name in node.inputs)))


LOWER: dict[str, Callable[[_Builder, Node], None]] = {
    "linear": _product,
    "conv2d": _product,
    "chain": _chain,
    "threshold": _threshold,
    "max_pool2d": _same,
    "avg_pool2d": _same,
    "flatten": _same,
    "pad2d": _pad2d,
    "resize2d": _resize2d,
    "concat": _concat,
    "add": _add,
}
