"""Nearest pixels are copies, so a chain commutes with them: ahead of them it meets the layer that it belongs to, and works on fewer values where the image grows."""

from __future__ import annotations

from lobit.capture.passes.edit import chain_node, fresh, producers, steps_of, uses, with_nodes
from lobit.format import Graph, Node


def resize_after_chain(graph: Graph) -> Graph:
    """``resize2d -> chain`` becomes ``chain -> resize2d`` where nearest pixels are taken and the chain is the only reader.

    The value that the chain made keeps its name; the one of the former size has that name and ``.image``.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        resize = made.get(node.inputs[0])
        if node.op != "chain" or resize is None or resize.op != "resize2d" or "row_weights" in resize.constants or count[resize.output] > 1:
            continue
        image = fresh(f"{node.output}.image", {*graph.inputs, *made})
        chain = chain_node(node.name, resize.inputs[0], image, steps_of(node), node)
        moved = Node("resize2d", resize.name, (image,), node.output, resize.attrs, resize.constants)
        nodes = [new for old in graph.nodes if old is not resize for new in ([chain, moved] if old is node else [old])]
        return resize_after_chain(with_nodes(graph, nodes))
    return graph
