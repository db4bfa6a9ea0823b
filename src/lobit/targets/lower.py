"""From a checked graph to a list of calls: which value stands in which form, what is fused into the product before it, and what each loop is given.

A product takes in the max pool (of windows that do not overlap) and the threshold or chain behind it, if nothing else reads what is between: the sums of a
layer are then never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from lobit.bits import Alphabet
from lobit.errors import ExportError
from lobit.format import Constant, Graph, Node, ValueType
from lobit.format.geometry import Window, window_of
from lobit.targets.algebra import cheaper_form
from lobit.targets.values import Value

PRODUCTS = ("linear", "conv2d")
STAGES = ("threshold", "chain")
MOVES = ("max_pool2d", "flatten", "pad2d", "concat", "resize2d")
"""What passes codes on as they are."""


@dataclass(slots=True)
class Call:
    """One call of a loop: the node it belongs to, what it reads and makes, and the words of scratch it needs.

    ``node`` is the product, stage, pool, add or what moves values; ``pool`` and ``stage`` are what a product takes in.
    """

    node: Node
    reads: list[Value]
    makes: Value
    pool: Node | None = None
    stage: Node | None = None
    scratch: int = 0

    @property
    def name(self) -> str:
        """Names of all nodes that it computes."""
        return " + ".join(node.name for node in (self.node, self.pool, self.stage) if node is not None)


@dataclass(slots=True)
class Program:
    """Calls in the order they run; those on inputs come first."""

    graph: Graph
    inputs: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    def constant(self, node: Node, role: str) -> Constant:
        """The constant of a role of a node."""
        return self.graph.constants[node.constants[role]]

    def window(self, node: Node) -> Window:
        """The window of a convolution, a pool or padding."""
        kernel = self.constant(node, "weight").shape[2:] if node.op == "conv2d" else node.attrs.get("kernel", (1, 1))
        return window_of({"dilation": [1, 1], "stride": [1, 1], **node.attrs, "kernel": list(kernel)})


def lower(graph: Graph) -> Program:
    """Make the program of a checked graph.

    Raises
    ------
    ExportError
        For a float layer, by name.
    """
    for node in graph.nodes:
        if node.op.endswith("_f32"):
            raise ExportError(
                f"layer {node.name!r} ({node.op}) computes in float32, which is not exact and has no place on a microcontroller; "
                "quantize it (W8A8 is the widest) and export again"
            )
    return _Lowering(graph).run()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program = Program(graph)
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.values: dict[str, Value] = {}
        self.done: set[str] = set()

    def run(self) -> Program:
        for name, shape in self.graph.inputs.items():
            value = Value(name, self.graph.types[name], "f32", _order(shape), external=True)
            self.values[name] = value
            self.program.inputs.append(value)
        for node in self.graph.nodes:
            if node.name not in self.done:
                self.lower(node)
        self.program.outputs = [self.inside(name) for name in self.graph.outputs]
        self.program.calls.sort(key=lambda call: not any(value.external for value in call.reads))
        return self.program

    def lower(self, node: Node) -> None:
        if node.op == "flatten" and self.flattens_freely(node):
            x = self.values[node.inputs[0]]
            order = (x.elements, 1) if x.external or 1 in x.order else x.order
            self.values[node.output] = Value(node.output, self.graph.types[node.output], x.form, order, x.external, x)
            return
        if node.op in PRODUCTS:
            self.lower_product(node)
            return
        reads = [self.values[name] if node.op == "chain" else self.inside(name) for name in node.inputs]
        self.call(node, reads, node.output)

    def flattens_freely(self, node: Node) -> bool:
        """Whether channels-last order serves as well as PyTorch's: of an input, of one channel or pixel, or where only linear layers and outputs follow."""
        x = self.values[node.inputs[0]]
        if x.external:
            return True
        linear = all(reader.op == "linear" for reader in self.readers.get(node.output, []))
        return 1 in x.order or (linear and x.type.kind == "codes")

    def lower_product(self, node: Node) -> None:
        pool = stage = None
        last = node
        follower = self.only_reader(node)
        if node.op == "conv2d" and follower is not None and follower.op == "max_pool2d" and self.apart(follower):
            after = self.only_reader(follower)
            if after is not None and after.op in STAGES:
                pool, stage, last = follower, after, after
        elif follower is not None and follower.op in STAGES:
            stage = last = follower
        self.done.update(each.name for each in (pool, stage) if each is not None)
        self.call(node, [self.inside(node.inputs[0])], last.output, pool, stage)

    def call(self, node: Node, reads: list[Value], output: str, pool: Node | None = None, stage: Node | None = None) -> None:
        kind = self.graph.types[output]
        made = Value(output, kind, self.form(output, kind, reads, node), _order(kind.shape))
        self.values[output] = made
        self.program.calls.append(Call(node, reads, made, pool, stage))

    def form(self, name: str, kind: ValueType, reads: list[Value], node: Node) -> str:
        if kind.code is None:
            return kind.kind
        if kind.code.alphabet is Alphabet.LOG2:
            return "bytes"
        if node.op in MOVES:
            return reads[0].form
        uses = [(weight.code, math.prod(weight.shape[1:])) for weight in self.weights_behind(name) if weight.code is not None]
        return cheaper_form(kind.code, uses)

    def weights_behind(self, name: str) -> Iterable[Constant]:
        """Weights of the products that read codes, also through pools and flattening."""
        for reader in self.readers.get(name, []):
            if reader.op in PRODUCTS:
                yield self.program.constant(reader, "weight")
            elif reader.op in MOVES:
                yield from self.weights_behind(reader.output)

    def only_reader(self, node: Node) -> Node | None:
        readers = self.readers.get(node.output, [])
        return readers[0] if len(readers) == 1 and node.output not in self.graph.outputs else None

    def apart(self, pool: Node) -> bool:
        """Whether the windows of a pool do not overlap, so that no position is computed twice."""
        window = self.program.window(pool)
        return all(d == 1 and s >= k for k, s, d in zip(window.kernel, window.stride, window.dilation, strict=True))

    def inside(self, name: str) -> Value:
        """A value in the arena, channels-last; an input is copied there first."""
        value = self.values[name]
        if not value.external:
            return value
        copy = Node("chain", f"{name}, copied", (name,), name, {"steps": [], "code": None, "zero": 0})
        self.values[name] = Value(name, value.type, "f32", value.order)
        self.program.calls.append(Call(copy, [value], self.values[name]))
        return self.values[name]


def _order(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
