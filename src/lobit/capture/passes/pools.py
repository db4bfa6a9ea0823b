"""Max pooling commutes with a chain that never falls, ``max(f(a), f(b)) = f(max(a, b))``, so it moves to where a layer and its chain stay together."""

from __future__ import annotations

from lobit.capture.passes.edit import chain_node, ends_in_codes, fresh, operands, producers, steps_of, uses, with_nodes
from lobit.capture.passes.monotone import never_falls
from lobit.format import Graph, Node


def pool_before_chain(graph: Graph) -> Graph:
    """``chain -> max_pool`` becomes ``max_pool -> chain`` where the chain never falls in any channel: the sums are pooled, and fewer values pass the chain.

    The value that the pool made keeps its name.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        chain = made.get(node.inputs[0])
        if node.op != "max_pool2d" or chain is None or chain.op != "chain" or ends_in_codes(chain) or count[chain.output] > 1:
            continue
        if _never_falls(graph, chain):
            pooled = fresh(f"{node.output}.pooled", {*graph.inputs, *made})
            pool = Node(node.op, node.name, chain.inputs, pooled, node.attrs)
            return pool_before_chain(_swap(graph, chain, node, [pool, chain_node(chain.name, pooled, node.output, steps_of(chain), chain)]))
    return graph


def pool_after_codes(graph: Graph) -> Graph:
    """``chain -> max_pool -> chain to codes`` becomes ``chain -> chain to codes -> max_pool`` where the first chain falls in some channel.

    Such a pool cannot move ahead (`pool_before_chain`); behind the quantizer, which never falls, the two chains meet and can fold into thresholds.
    The value that the quantizer made keeps its name.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        pool = made.get(node.inputs[0])
        if node.op != "chain" or not ends_in_codes(node) or pool is None or pool.op != "max_pool2d" or count[pool.output] > 1:
            continue
        first = made.get(pool.inputs[0])
        if first is not None and first.op == "chain" and count[first.output] == 1 and _never_falls(graph, node):
            codes = fresh(f"{node.output}.image", {*graph.inputs, *made})
            chain = chain_node(node.name, pool.inputs[0], codes, steps_of(node), node)
            return pool_after_codes(_swap(graph, pool, node, [chain, Node(pool.op, pool.name, (codes,), node.output, pool.attrs)]))
    return graph


def _never_falls(graph: Graph, chain: Node) -> bool:
    return never_falls(operands(graph, chain), graph.types[chain.output].shape[0])


def _swap(graph: Graph, first: Node, second: Node, by: list[Node]) -> Graph:
    """Put ``by`` where ``second`` stands and take ``first`` away."""
    nodes = [new for node in graph.nodes if node is not first for new in (by if node is second else [node])]
    return with_nodes(graph, nodes)
