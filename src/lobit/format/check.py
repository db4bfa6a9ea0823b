"""The check of a graph: nodes against the table of operators, names, shapes and limits; the type of every value is derived on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lobit.errors import FormatError
from lobit.format.geometry import MAX_EXTENT
from lobit.format.graph import Constant, Graph, Node, ValueType
from lobit.format.operators import OPERATORS
from lobit.format.table import MAX_CONSTANTS, MAX_NAME, MAX_NODES, MAX_VALUES, Call


def check_graph(graph: Graph) -> Graph:
    """Check a graph against the table and derive the type of every value.

    Returns
    -------
    Graph
        The same graph with ``types`` filled in.

    Raises
    ------
    FormatError
        Naming the node and what is wrong with it.
    """
    if len(graph.nodes) > MAX_NODES or len(graph.constants) > MAX_CONSTANTS:
        raise FormatError(f"{len(graph.nodes)} nodes and {len(graph.constants)} constants; the limits are {MAX_NODES} and {MAX_CONSTANTS}")
    for name, constant in graph.constants.items():
        if constant.data.dtype.kind == "f" and not np.isfinite(constant.data).all():
            raise FormatError(f"constant {name!r} is not finite")
    with_zeros = frozenset(name for name, c in graph.constants.items() if c.data.dtype.kind == "f" and not c.data.all())
    types: dict[str, ValueType] = {}
    for name, shape in graph.inputs.items():
        _check_shape(f"input {name!r}", shape)
        types[_fresh(name, types)] = ValueType("f32", shape)
    if not types:
        raise FormatError("a graph needs an input")
    names: set[str] = set()
    used: set[str] = set()
    for node in graph.nodes:
        _fresh(node.name, names)
        names.add(node.name)
        types[_fresh(node.output, types)] = _infer(node, types, graph.constants, with_zeros)
        _check_shape(f"node {node.name!r}", types[node.output].shape)
        used.update(node.constants.values())
    if missing := [name for name in graph.outputs if name not in types] or not graph.outputs:
        raise FormatError(f"outputs must name values of the graph; {missing if graph.outputs else 'there are none'}")
    if unused := set(graph.constants) - used:
        raise FormatError(f"constants {sorted(unused)[:3]} are not used by any node")
    return replace(graph, types=types)


def _infer(node: Node, types: Mapping[str, ValueType], constants: Mapping[str, Constant], with_zeros: frozenset[str]) -> ValueType:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise FormatError(f"node {node.name!r}: unknown operator {node.op!r}; this version has {', '.join(sorted(OPERATORS))}")
    if missing := [name for name in (*node.inputs, *node.constants.values()) if name not in types and name not in constants]:
        raise FormatError(f"node {node.name!r} ({node.op}) uses {missing[0]!r}, which nothing before it makes")
    for names, table in ((node.inputs, types), (node.constants.values(), constants)):
        if wrong := [name for name in names if name not in table]:
            raise FormatError(f"node {node.name!r} ({node.op}) confuses values and constants at {wrong[0]!r}")
    by_role = {role: constants[name] for role, name in node.constants.items()}
    call = Call(node, tuple(types[name] for name in node.inputs), by_role, with_zeros)
    least, most = operator.arity
    if not least <= len(call.inputs) <= most:
        raise call.fail(f"it takes {least if least == most else f'{least} to {most}'} inputs, not {len(call.inputs)}")
    if unknown := set(node.attrs) - set(operator.attrs):
        raise call.fail(f"unknown attributes {sorted(unknown)}; it has {', '.join(operator.attrs) or 'none'}")
    if node.op != "chain" and (unknown := set(node.constants) - {*operator.required, *operator.optional}):
        raise call.fail(f"unknown constants {sorted(unknown)}; it has {', '.join((*operator.required, *operator.optional)) or 'none'}")
    return operator.infer(call)


def _fresh(name: str, taken: Any) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME:
        raise FormatError(f"names are printable and have 1 to {MAX_NAME} bytes in UTF-8; got {str(name)[:40]!r}")
    if name in taken:
        raise FormatError(f"the name {name!r} stands twice")
    return name


def _check_shape(what: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 2, 3) or any(type(n) is not int or n < 1 for n in shape) or math.prod(shape) > MAX_VALUES:
        raise FormatError(f"{what} has shape {shape}; lobit runs (C,), (C, L) and (C, H, W) of at most 2^28 values")
    if any(n > MAX_EXTENT for n in shape[1:]):
        raise FormatError(f"{what} has shape {shape}; the limit of height and width is {MAX_EXTENT}")
