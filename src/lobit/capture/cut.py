"""A graph cut at some of its codes, to run each part from given codes."""

from __future__ import annotations

from collections.abc import Sequence

from lobit.capture.passes.edit import fresh
from lobit.format import Graph, Node, check_graph


def cut_at(graph: Graph, names: Sequence[str]) -> Graph:
    """Take codes from outside where the graph would use its own.

    Parameters
    ----------
    graph : Graph
        Checked.
    names : sequence of str
        Values that are codes.

    Returns
    -------
    Graph
        With one more input for each name, in order: the real values ``code - zero`` of the codes to go on from; and one more output for each: the codes
        that the graph itself makes there.
    """
    taken = {*graph.inputs, *(node.output for node in graph.nodes), *(node.name for node in graph.nodes)}
    inputs = dict(graph.inputs)
    made: dict[str, str] = {}
    nodes: list[Node] = []
    for name in names:
        kind = graph.types[name]
        source = fresh(f"{name}.given", taken)
        taken.add(source)
        made[name] = fresh(f"{name}.made", taken)
        taken.add(made[name])
        inputs[source] = kind.shape
        nodes.append(Node("chain", source, (source,), name, {"steps": [], "code": str(kind.code), "zero": kind.zero}))
    for node in graph.nodes:
        nodes.append(Node(node.op, node.name, node.inputs, made.get(node.output, node.output), node.attrs, node.constants))
    outputs = tuple(made.get(name, name) for name in (*graph.outputs, *names))
    return check_graph(Graph(inputs, nodes, outputs, graph.constants))
