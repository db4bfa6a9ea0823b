"""A chain from sums to codes of one or two bits becomes integer thresholds per channel.

The chain is a monotone function of the sum s (`lobit.capture.passes.monotone`), so each level is reached from one integer on. That integer is found by
bisection over every sum that the layer can reach, with the very float32 steps of the chain: no algebra on scales, hence no rounding of our own.
Negative scales turn the comparison round; a scale of zero makes a constant channel. Source: the BN + sign fold of arXiv 1609.07061, section 5, made exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.capture.passes.arithmetic import apply_steps, to_codes
from lobit.capture.passes.edit import fresh, operands, producers, with_nodes
from lobit.capture.passes.monotone import Operands, directions
from lobit.format import Constant, Graph, Node, accumulator_bound

MAX_BITS = 2
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Levels:
    """The level of a code, 0 .. 2^k - 1, that a chain makes of an integer sum."""

    steps: Operands
    code: CodeType
    zero: int

    def floats(self, sums: NDArray[np.int64]) -> NDArray[np.float32]:
        """The chain's value before it becomes codes, float32 of the shape (C,) of ``sums``."""
        return apply_steps(self.steps, sums.astype(np.float32))

    def __call__(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Levels of sums of shape (C,), one for each channel."""
        return (to_codes(self.floats(sums), self.code, self.zero) - self.code.lo) // self.code.spacing


def fold_thresholds(graph: Graph) -> Graph:
    """Replace each ``chain`` from i32 to uniform codes of at most two bits by a ``threshold``; other outputs keep their float chain."""
    made = producers(graph)
    constants: dict[str, Constant] = {}
    taken = set(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        if found := _thresholds(graph, node, made):
            names = {}
            for role, array in zip(("thresholds", "direction"), found, strict=True):
                names[role] = fresh(f"{node.output}.{role}", taken)
                taken.add(names[role])
                constants[names[role]] = Constant.from_array(array)
            attrs = {"code": node.attrs["code"], "zero": node.attrs.get("zero", 0)}
            node = Node("threshold", node.name, node.inputs, node.output, attrs, names)
        nodes.append(node)
    return with_nodes(graph, nodes, constants) if constants else graph


def _thresholds(graph: Graph, node: Node, made: dict[str, Node]) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    if node.op != "chain" or node.attrs.get("code") is None or graph.types[node.inputs[0]].kind != "i32":
        return None
    code = CodeType.parse(node.attrs["code"])
    if code.bits > MAX_BITS or code.alphabet is Alphabet.LOG2:
        return None
    channels = graph.types[node.inputs[0]].shape[0]
    steps = operands(graph, node)
    way = directions(steps, channels)
    if way is None:
        return None
    return bisect(Levels(steps, code, node.attrs.get("zero", 0)), np.where(way < 0, -1, 1), _bound(graph, node.inputs[0], made))


def _bound(graph: Graph, value: str, made: dict[str, Node]) -> int:
    """Largest magnitude of a sum; pools and flatten only pass sums on."""
    node = made[value]
    while node.op not in ("linear", "conv2d"):
        node = made[node.inputs[0]]
    weight = graph.constants[node.constants["weight"]]
    assert weight.code is not None
    return accumulator_bound(math.prod(weight.shape[1:]), graph.types[node.inputs[0]], weight.code)


def bisect(levels: Levels, direction: NDArray[np.int64], bound: int) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Thresholds of a monotone function over the integers -bound .. bound.

    Parameters
    ----------
    levels : Levels
        Of C channels.
    direction : ndarray of shape (C,)
        +1 or -1.
    bound : int
        At most 2^31 - 1.

    Returns
    -------
    thresholds : int32 ndarray of shape (C, L - 1)
        Of L levels. ``level(s) = #{j: s >= t_j}`` where the direction is +1, ``#{j: s <= t_j}`` where it is -1. A level that every sum reaches has the
        extreme int32 that always compares true, one that no sum reaches the extreme that never does.
    direction : int32 ndarray of shape (C,)

    None when the chain overflows float32 for a reachable sum, where it need not be monotone.
    """
    ends = np.full(direction.shape, bound, np.int64) * direction
    if not all(np.isfinite(levels.floats(end)).all() for end in (ends, -ends)):
        return None
    columns = []
    for level in range(1, len(levels.code.levels)):
        # in r = s * direction the level never falls with r: find the least r in -bound .. bound that reaches it, or bound + 1
        low, high = np.full(direction.shape, -bound, np.int64), np.full(direction.shape, bound + 1, np.int64)
        while (low < high).any():
            middle = (low + high) // 2
            reached = levels(np.minimum(middle, bound) * direction) >= level
            active = low < high
            high = np.where(active & reached, middle, high)
            low = np.where(active & ~reached, middle + 1, low)
        always, never = low == -bound, low == bound + 1
        columns.append(np.where(always, -(2**31), np.where(never, 2**31, low)) * direction)
    stacked = np.clip(np.stack(columns, axis=1), INT32_MIN, INT32_MAX)
    return stacked.astype(np.int32), direction.astype(np.int32)
