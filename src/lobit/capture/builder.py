"""The graph under construction: named values, nodes, constants, and which of them are outside the exact class and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobit.bits import CodeType
from lobit.errors import ExportError
from lobit.format import Constant, Graph, Node, Step

ChainStep = tuple[str, str, ArrayLike] | tuple[str]
"""A step of a chain: ``(op,)``, or ``(op, role, operand)`` with an operand of one value or one per channel."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph: its name, its shape without the batch axis, and why it is inexact (None when it is exact)."""

    name: str
    shape: tuple[int, ...]
    inexact: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """What a report says of one layer.

    Parameters
    ----------
    name : str
        The node that does its arithmetic; the module's path.
    op : str
        The node's operator.
    bits : str
        ``"W2A4"``, or ``""`` for a layer without weights.
    inexact : str or None
        Why its numbers may differ from PyTorch's in the last place; None in the exact class.
    causes_it : bool
        Whether the reason lies in the layer itself, not in one before it.
    weight_bytes, float_bytes : int
        Its weights as stored, and as float32.
    """

    name: str
    op: str
    bits: str
    inexact: str | None
    causes_it: bool
    weight_bytes: int
    float_bytes: int


@dataclass
class GraphBuilder:
    """Collects nodes in order. Names are made unique: the second use of ``"fc"`` is ``"fc@2"``."""

    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def input(self, name: str, shape: tuple[int, ...]) -> Value:
        """Declare a float input."""
        name = self.unique(name)
        self.inputs[name] = shape
        return Value(name, shape)

    def unique(self, name: str) -> str:
        """``name``, or the first of ``name@2``, ``name@3``, .. that is free; taken from now on."""
        fresh, count = name, 1
        while fresh in self._taken:
            count += 1
            fresh = f"{name}@{count}"
        self._taken.add(fresh)
        return fresh

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        attrs: Mapping[str, Any] | None = None,
        constants: Mapping[str, Constant | str] | None = None,
        *,
        output: str | None = None,
        inexact: str | None = None,
    ) -> Value:
        """Append a node and return its value.

        Parameters
        ----------
        name : str
            Of the node; must be unique already (`unique`).
        constants : mapping of str to Constant or str, optional
            By role; a string names a constant that another node has brought.
        output : str, optional
            Name of the value; the node's own name by default.
        inexact : str, optional
            Why the node itself is inexact. A value is inexact too when an input is.
        """
        names = {}
        for role, constant in (constants or {}).items():
            if isinstance(constant, str):
                names[role] = constant
                continue
            names[role] = self.unique(f"{name}.{role}")
            self.constants[names[role]] = constant
        output = name if output is None else self.unique(output)
        self.nodes.append(Node(op, name, tuple(value.name for value in inputs), output, attrs or {}, names))
        return Value(output, shape, inexact or inherited(inputs))

    def chain(
        self, name: str, x: Value, steps: Sequence[ChainStep], code: CodeType | None = None, zero: int = 0, *, inexact: str | None = None
    ) -> Value:
        """Append a chain of steps that ends in float32, or in codes when ``code`` is given."""
        if not steps and code is None:
            return x
        entries: list[Step] = []
        constants: dict[str, Constant] = {}
        for step in steps:
            if len(step) == 1:
                entries.append(Step(step[0]))
                continue
            op, role, operand = step
            while role in constants:
                role += "_"
            constants[role] = Constant.from_array(self._operand(name, operand, x.shape[0]))
            entries.append(Step(op, role))
        attrs: dict[str, Any] = {"steps": entries}
        if code is not None:
            attrs |= {"code": str(code), "zero": zero}
        return self.node("chain", self.unique(name), [x], x.shape, attrs, constants, inexact=inexact)

    def _operand(self, name: str, operand: ArrayLike, channels: int) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, refused just below
            array = np.asarray(operand).astype(np.float32).reshape(-1)
        if array.size not in (1, channels):
            raise ExportError(
                f"{name!r}: a constant of {array.size} values meets {channels} channels; it needs one value, or one per channel"
            )
        if not np.isfinite(array).all():
            raise ExportError(f"{name!r}: a constant is not finite in float32; check the model's parameters and statistics")
        return array

    def layer(self, name: str, op: str, bits: str, x: Value, inexact: str | None, *weights: str) -> None:
        """Record a layer for the reports; ``weights`` names its constants, several of one shape where the weights are in parts."""
        constants = [self.constants[weight] for weight in weights]
        stored = sum(constant.nbytes for constant in constants)
        floats = 4 * int(np.prod(constants[0].shape)) if constants else 0
        self.layers.append(Layer(name, op, bits, inexact or x.inexact, inexact is not None, stored, floats))

    def graph(self, outputs: Sequence[Value], meta: Mapping[str, str]) -> Graph:
        """The finished graph; its types are not derived yet."""
        return Graph(self.inputs, self.nodes, tuple(value.name for value in outputs), self.constants, meta=meta)


def inherited(inputs: Sequence[Value]) -> str | None:
    """The reason that comes with inexact inputs."""
    return next((value.inexact for value in inputs if value.inexact), None)
