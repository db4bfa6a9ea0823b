"""From a checked graph to the native program: every node becomes one call, constants become plain integer codes or floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lobit import _native
from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.format import Constant, Graph, Node
from lobit.runtime.hardware import ISAS

Carrier = Literal["planes", "bytes"]
PREFER: dict[str | None, int] = {None: 0, "planes": 1, "bytes": 2}
STEPS = ("to_float", "round", "add", "sub", "mul", "div", "max", "min")
ALPHABETS = tuple(Alphabet)
MEMORY_FLOOR, MEMORY_PER_BYTE = 1 << 28, 64
"""What packed weights, thresholds and tables of a network may take: this much, and this many times its constants. A hostile file asks for more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A finished native program and the numbers of its values by their names in the graph."""

    program: Any
    values: Mapping[str, int]


class _Lowering:
    """Adds the nodes of one graph to a program."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program = _native.Program(MEMORY_FLOOR + MEMORY_PER_BYTE * sum(constant.nbytes for constant in graph.constants.values()))
        self.values = {name: self.program.input(name, list(shape)) for name, shape in graph.inputs.items()}

    def add(self, node: Node) -> None:
        self.values[node.output] = LOWER[node.op](self, node, self.values[node.inputs[0]])

    def constant(self, node: Node, role: str) -> Constant:
        return self.graph.constants[node.constants[role]]

    def array(self, node: Node, role: str) -> Any:
        """A constant as a plain array; None where the node has none of that role."""
        return np.ascontiguousarray(self.constant(node, role).data) if role in node.constants else None

    def window(self, node: Node) -> list[int]:
        """Kernel, stride, padding, dilation and groups in a row."""
        attrs = node.attrs
        kernel = attrs["kernel"] if "kernel" in attrs else self.constant(node, "weight").shape[2:]
        return [*kernel, *attrs["stride"], *attrs["padding"], *attrs.get("dilation", (1, 1)), attrs.get("groups", 1)]


def _code(code: CodeType) -> tuple[int, int]:
    return ALPHABETS.index(code.alphabet), code.bits


def _chain(low: _Lowering, node: Node, x: int) -> int:
    steps = [(STEPS.index(step.op), None if step.operand is None else low.array(node, step.operand)) for step in node.attrs["steps"]]
    text = node.attrs.get("code")
    return int(low.program.chain(node.name, x, steps, text and _code(CodeType.parse(text)), node.attrs.get("zero", 0)))


def _threshold(low: _Lowering, node: Node, x: int) -> int:
    code = _code(CodeType.parse(node.attrs["code"]))
    zero = node.attrs.get("zero", 0)
    return int(low.program.threshold(node.name, x, code, zero, low.array(node, "thresholds"), low.array(node, "direction")))


def _weight(low: _Lowering, node: Node) -> tuple[tuple[int, int], Any]:
    weight = low.constant(node, "weight")
    assert weight.code is not None
    return _code(weight.code), weight.codes()


def _linear(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.linear(node.name, x, *_weight(low, node)))


def _conv2d(low: _Lowering, node: Node, x: int) -> int:
    code, weight = _weight(low, node)
    return int(low.program.conv2d(node.name, x, code, low.window(node), weight))


def _linear_f32(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.linear_f32(node.name, x, low.array(node, "weight"), low.array(node, "bias")))


def _conv2d_f32(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.conv2d_f32(node.name, x, low.window(node), low.array(node, "weight"), low.array(node, "bias")))


def _max_pool2d(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.max_pool2d(node.name, x, low.window(node)))


def _avg_pool2d(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.avg_pool2d(node.name, x, low.window(node), node.attrs["divisor"]))


def _add(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.add(node.name, x, low.values[node.inputs[1]]))


def _flatten(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.flatten(node.name, x))


def _pad2d(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.pad2d(node.name, x, list(node.attrs["padding"]), node.attrs["value"]))


def _concat(low: _Lowering, node: Node, x: int) -> int:
    return int(low.program.concat(node.name, [low.values[name] for name in node.inputs]))


def _resize2d(low: _Lowering, node: Node, x: int) -> int:
    tables = (low.array(node, role) for role in ("rows", "columns", "row_weights", "column_weights"))
    return int(low.program.resize2d(node.name, x, *tables))


LOWER: dict[str, Callable[[_Lowering, Node, int], int]] = {
    "chain": _chain,
    "threshold": _threshold,
    "linear": _linear,
    "conv2d": _conv2d,
    "linear_f32": _linear_f32,
    "conv2d_f32": _conv2d_f32,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "add": _add,
    "flatten": _flatten,
    "pad2d": _pad2d,
    "concat": _concat,
    "resize2d": _resize2d,
}


def make_plan(graph: Graph, isa: str, prefer: Carrier | None = None) -> Plan:
    """Build and finish the native program of a checked graph.

    Parameters
    ----------
    graph : Graph
        With ``types`` filled in, as `lobit.format.check_graph` returns it.
    isa : str
        A name of `lobit.runtime.isas`.
    prefer : {"planes", "bytes"}, optional
        The carrier of codes wherever there is a choice; by cost when None.

    Raises
    ------
    ConfigError
        When the program cannot be built: no memory, an unknown carrier, or a limit of the engine.
    """
    if prefer not in PREFER:
        raise ConfigError(f"prefer is {prefer!r}; choose 'planes', 'bytes', or None for the cheaper one")
    try:
        low = _Lowering(graph)
        for node in graph.nodes:
            low.add(node)
        low.program.finish([low.values[name] for name in graph.outputs], ISAS.index(isa), PREFER[prefer])
    except ValueError as error:
        raise ConfigError(f"the engine cannot run this graph: {error}") from None
    except MemoryError:
        raise ConfigError("there is not enough memory for this network; free some, or use a smaller network") from None
    return Plan(low.program, low.values)
