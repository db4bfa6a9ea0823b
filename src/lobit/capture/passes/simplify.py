"""Steps that change no bit of a chain's result are dropped."""

from __future__ import annotations

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.capture.passes.edit import Array, Steps, chain_node, steps_of, with_nodes
from lobit.format import Constant, Graph, Node

JOIN = {"max": np.maximum, "min": np.minimum}


def drop_idle_steps(graph: Graph) -> Graph:
    """Shorten chains where that is exact to the last bit.

    - ``mul 1``, ``div 1``, ``sub +0``, ``add -0`` go (``add +0`` and ``sub -0`` turn -0 into +0, so they go only ahead of codes, which do not tell zeros apart);
    - ``max a, max b`` becomes ``max max(a, b)``, and so for ``min``; the second of two ``round`` goes;
    - ahead of codes, a last ``round`` (not ahead of powers of two, which have levels between its), and a last ``max`` or ``min`` that clamps no closer than the codes' own range, go.

    A chain of floats that has no step left is taken out.
    """
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    alias: dict[str, str] = {}
    for node in graph.nodes:
        node = Node(node.op, node.name, tuple(alias.get(name, name) for name in node.inputs), node.output, node.attrs, node.constants)
        if node.op == "chain":
            before = steps_of(node)
            steps = _shorten(graph, node, before, constants)
            if not steps and node.attrs.get("code") is None:
                alias[node.output] = node.inputs[0]
                continue
            if steps != before:
                node = chain_node(node.name, node.inputs[0], node.output, steps, node)
        nodes.append(node)
    outputs = tuple(alias.get(name, name) for name in graph.outputs)
    return with_nodes(Graph(graph.inputs, [], outputs, graph.constants, meta=graph.meta), nodes, constants)


def _shorten(graph: Graph, node: Node, steps: Steps, added: dict[str, Constant]) -> Steps:
    code = node.attrs.get("code")
    kept: Steps = []
    for op, name in steps:
        data = None if name is None else (added.get(name) or graph.constants[name]).data
        if data is not None and _idle(op, data, ahead_of_codes=code is not None):
            continue
        if kept and op == "round" == kept[-1][0]:
            continue
        if kept and op in JOIN and op == kept[-1][0]:
            previous = kept.pop()[1]
            assert previous is not None
            assert data is not None
            both = JOIN[op]((added.get(previous) or graph.constants[previous]).data, data)
            name = f"{name}+{previous}"
            added[name] = Constant.from_array(both.astype(np.float32))
        kept.append((op, name))
    if code is not None:
        kind, zero = CodeType.parse(code), node.attrs.get("zero", 0)
        while kept and _last_is_idle(kept[-1], kind, zero, graph, added):
            kept.pop()
    return kept


def _idle(op: str, data: Array, *, ahead_of_codes: bool) -> bool:
    if op in ("mul", "div"):
        return bool((data == 1).all())
    if op in ("add", "sub") and not data.any():
        return ahead_of_codes or bool((np.signbit(data) == (op == "add")).all())
    return False


def _last_is_idle(step: tuple[str, str | None], code: CodeType, zero: int, graph: Graph, added: dict[str, Constant]) -> bool:
    """Whether the codes come out the same without the last step: they round and clamp themselves, or only look at the sign."""
    op, name = step
    sign = code == CodeType(Alphabet.ODD, 1)
    if name is None:
        return op == "round" and not sign and code.alphabet is not Alphabet.LOG2
    data = (added.get(name) or graph.constants[name]).data
    if op == "max":
        return bool((data < 0 if sign else data <= code.lo - zero).all())
    if op == "min":
        return bool((data >= 0 if sign else data >= code.hi - zero).all())
    return False
