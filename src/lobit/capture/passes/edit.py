"""Helpers of the passes: who makes and who uses a value, free names, chains as lists, and graphs with other nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.format import Constant, Graph, Node, Step, check_graph

Array = NDArray[np.float32]
Steps = list[tuple[str, str | None]]
"""A chain's steps as (operation, name of the constant or None)."""


def producers(graph: Graph) -> dict[str, Node]:
    """The node that makes each value."""
    return {node.output: node for node in graph.nodes}


def uses(graph: Graph) -> dict[str, int]:
    """How many times each value is read, by nodes or as an output."""
    counts = dict.fromkeys([*graph.inputs, *(node.output for node in graph.nodes)], 0)
    for name in [*(name for node in graph.nodes for name in node.inputs), *graph.outputs]:
        counts[name] += 1
    return counts


def fresh(name: str, taken: Iterable[str]) -> str:
    """``name``, or the first of ``name@2``, ``name@3``, .. that is not taken."""
    known, free, count = set(taken), name, 1
    while free in known:
        count += 1
        free = f"{name}@{count}"
    return free


def with_nodes(graph: Graph, nodes: Sequence[Node], added: Mapping[str, Constant] | None = None) -> Graph:
    """The graph with other nodes and more constants; constants that no node uses are dropped and types derived again."""
    constants = {**graph.constants, **(added or {})}
    used = {name for node in nodes for name in node.constants.values()}
    return check_graph(replace(graph, nodes=list(nodes), constants={name: c for name, c in constants.items() if name in used}))


def steps_of(node: Node) -> Steps:
    """The steps of a chain, with names of constants in place of roles."""
    return [(step.op, None if step.operand is None else node.constants[step.operand]) for step in node.attrs["steps"]]


def chain_node(name: str, source: str, output: str, steps: Steps, like: Node) -> Node:
    """A chain of these steps that ends as the chain ``like`` does: in floats, or in its codes."""
    roles: dict[str, str] = {}
    for _, constant in steps:
        if constant is not None:
            roles.setdefault(constant, f"c{len(roles)}")
    attrs: dict[str, Any] = {name: value for name, value in like.attrs.items() if name != "steps"}
    attrs["steps"] = [Step(op, None if constant is None else roles[constant]) for op, constant in steps]
    return Node("chain", name, (source,), output, attrs, {role: constant for constant, role in roles.items()})


def operands(graph: Graph, node: Node) -> list[tuple[str, Array | None]]:
    """The steps of a chain with the operands themselves."""
    return [(op, None if name is None else graph.constants[name].data) for op, name in steps_of(node)]


def ends_in_codes(node: Node) -> bool:
    """Whether a chain finishes in codes."""
    return node.attrs.get("code") is not None
