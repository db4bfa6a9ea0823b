"""Nodes that no output needs are dropped."""

from __future__ import annotations

from lobit.capture.passes.edit import with_nodes
from lobit.format import Graph, Node


def drop_dead(graph: Graph) -> Graph:
    """Keep the nodes that an output depends on, and the constants that these use. Inputs stay, used or not."""
    needed, kept = set(graph.outputs), list[Node]()
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    return with_nodes(graph, kept[::-1]) if len(kept) < len(graph.nodes) else graph
