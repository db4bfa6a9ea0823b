"""A chain with one constant for all channels moves ahead of a flatten, where it can join the chain before it and run in the layer's epilogue."""

from __future__ import annotations

from lobit.capture.passes.edit import chain_node, fresh, producers, steps_of, uses, with_nodes
from lobit.format import Graph, Node


def move_chains_before_flatten(graph: Graph) -> Graph:
    """``flatten -> chain`` becomes ``chain -> flatten``; the value that the chain made keeps its name.

    Element-wise steps with scalar constants do not care about shape. Another reader of the old flatten keeps it. A chain that reads codes stays: there is no
    chain before it to join, and the codes that a layer reads must keep their name.
    """
    made, count = producers(graph), uses(graph)
    values, names = {*graph.inputs, *made}, {node.name for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        before = made.get(node.inputs[0])
        if node.op == "chain" and before is not None and before.op == "flatten" and _moves(graph, node):
            if count[before.output] == 1:
                nodes.remove(before)
                names.remove(before.name)
            image, name = fresh(f"{node.output}.image", values), fresh(before.name, names)
            values.add(image)
            names.add(name)
            moved = chain_node(node.name, before.inputs[0], image, steps_of(node), node)
            nodes += [moved, Node("flatten", name, (image,), node.output)]
            made[node.output] = nodes[-1]
        else:
            nodes.append(node)
    return with_nodes(graph, nodes)


def _moves(graph: Graph, node: Node) -> bool:
    return graph.types[node.inputs[0]].kind != "codes" and all(graph.constants[name].shape == (1,) for name in node.constants.values())
