"""Padding moves behind the quantizer that reads it, where it pads codes, and from there into the convolution."""

from __future__ import annotations

import numpy as np

from lobit.bits import CodeType
from lobit.capture.passes.arithmetic import apply_steps, to_codes
from lobit.capture.passes.edit import chain_node, ends_in_codes, fresh, operands, producers, steps_of, uses, with_nodes
from lobit.format import Graph, Node
from lobit.format.geometry import MAX_EXTENT

LAYERS = ("conv2d", "conv2d_f32")
IMAGE = ".image"


def pad_after_codes(graph: Graph) -> Graph:
    """``pad2d -> chain to codes`` becomes ``chain to codes -> pad2d`` where the chain makes one code of the padding, the same in every channel.

    The layer before and its chain stay together, and the padding is of codes. The value that the chain made keeps its name; the unpadded codes have
    that name and ``.image``.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        pad = made.get(node.inputs[0])
        if node.op != "chain" or not ends_in_codes(node) or pad is None or pad.op != "pad2d" or count[pad.output] > 1:
            continue
        value = _code_of_padding(graph, pad, node)
        if value is not None:
            image = fresh(f"{node.output}{IMAGE}", {*graph.inputs, *made})
            chain = chain_node(node.name, pad.inputs[0], image, steps_of(node), node)
            moved = Node("pad2d", pad.name, (image,), node.output, {**pad.attrs, "value": value})
            nodes = [new for old in graph.nodes if old is not pad for new in ([chain, moved] if old is node else [old])]
            return pad_after_codes(with_nodes(graph, nodes))
    return graph


def _code_of_padding(graph: Graph, pad: Node, chain: Node) -> int | None:
    """The code that a chain makes of the padding; None where channels differ, or a step overflows."""
    kind = graph.types[pad.output]
    if kind.kind != "f32":
        return None
    x = apply_steps(operands(graph, chain), np.full(kind.shape[0], pad.attrs["value"], np.float32))
    if not np.isfinite(x).all():
        return None
    codes = to_codes(x, CodeType.parse(chain.attrs["code"]), chain.attrs.get("zero", 0))
    return int(codes[0]) if (codes == codes[0]).all() else None


def pad_into_layer(graph: Graph) -> Graph:
    """``pad2d`` with real 0 and the convolution that is its only reader become that convolution with more padding.

    A max pool's own padding never wins, so nothing merges into it. Codes that `pad_after_codes` has padded give the name back that they had.
    """
    made, count = producers(graph), uses(graph)
    for node in graph.nodes:
        pad = made.get(node.inputs[0])
        if node.op not in LAYERS or pad is None or pad.op != "pad2d" or count[pad.output] > 1 or not _is_real_zero(graph, pad):
            continue
        padding = [a + b for a, b in zip(node.attrs["padding"], pad.attrs["padding"], strict=True)]
        if max(padding) >= MAX_EXTENT:
            continue
        source = pad.inputs[0]
        name = pad.output if source.startswith(f"{pad.output}{IMAGE}") and count[source] == 1 else source
        layer = Node(node.op, node.name, (name,), node.output, {**node.attrs, "padding": padding}, node.constants)
        nodes = [layer if old is node else _makes(old, name) if old.output == source else old for old in graph.nodes if old is not pad]
        return pad_into_layer(with_nodes(graph, nodes))
    return graph


def _is_real_zero(graph: Graph, pad: Node) -> bool:
    return bool(pad.attrs["value"] == graph.types[pad.output].zero)


def _makes(node: Node, output: str) -> Node:
    return Node(node.op, node.name, node.inputs, output, node.attrs, node.constants)
