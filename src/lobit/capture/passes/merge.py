"""A chain whose only reader is a chain becomes one with it; the steps and their order stay, so the numbers do."""

from __future__ import annotations

from lobit.capture.passes.edit import chain_node, ends_in_codes, producers, steps_of, uses, with_nodes
from lobit.format import Graph, Node


def merge_chains(graph: Graph) -> Graph:
    """``chain(a) -> chain(b)`` becomes ``chain(a, b)`` under b's name, where nothing else reads the value between.

    A value that has two readers (a residual) is computed once and stays.
    """
    made, count = producers(graph), uses(graph)
    nodes: dict[str, Node] = {}  # by output, in order
    for node in graph.nodes:
        first = nodes.get(node.inputs[0]) if node.op == "chain" else None
        if first is not None and first.op == "chain" and not ends_in_codes(first) and count[first.output] == 1:
            del nodes[first.output]
            node = chain_node(node.name, first.inputs[0], node.output, steps_of(first) + steps_of(node), node)
        nodes[node.output] = node
    return with_nodes(graph, list(nodes.values())) if len(nodes) < len(made) else graph
