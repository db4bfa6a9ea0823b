"""A chain behind a concatenation becomes one chain for each of the values that it joins, where each can join the layer that makes the value."""

from __future__ import annotations

import itertools

from lobit.capture.passes.edit import chain_node, fresh, producers, steps_of, uses, with_nodes
from lobit.format import Constant, Graph, Node


def chain_before_concat(graph: Graph) -> Graph:
    """``concat -> chain`` becomes ``chains -> concat`` where nothing else reads what lies between; constants are cut along the channels.

    The value that the chain made keeps its name. Values with other readers stay as they are: the work would be done again for each reader.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        joined = made.get(node.inputs[0])
        if node.op != "chain" or joined is None or joined.op != "concat" or graph.types[joined.output].kind != "f32":
            continue
        if count[joined.output] == 1 and all(count[name] == 1 and name in made for name in joined.inputs):
            return chain_before_concat(_moved(graph, joined, node))
    return graph


def _moved(graph: Graph, joined: Node, chain: Node) -> Graph:
    taken = {*graph.inputs, *graph.constants, *(name for node in graph.nodes for name in (node.output, node.name))}
    widths = [graph.types[name].shape[0] for name in joined.inputs]
    added: dict[str, Constant] = {}
    parts: list[Node] = []
    for name, first, width in zip(joined.inputs, itertools.accumulate(widths, initial=0), widths, strict=False):
        steps = []
        for op, constant in steps_of(chain):
            if constant is not None and graph.constants[constant].shape != (1,):
                cut = fresh(f"{constant}.part", taken)
                taken.add(cut)
                added[cut] = Constant.from_array(graph.constants[constant].data[first : first + width])
                constant = cut
            steps.append((op, constant))
        value, own = (fresh(f"{base}.part", taken) for base in (chain.output, chain.name))
        taken |= {value, own}
        parts.append(chain_node(own, name, value, steps, chain))
    again = Node("concat", joined.name, tuple(part.output for part in parts), chain.output)
    nodes = [new for node in graph.nodes if node is not joined for new in ([*parts, again] if node is chain else [node])]
    return with_nodes(graph, nodes, added)
