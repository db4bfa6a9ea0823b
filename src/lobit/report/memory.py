"""How much memory the values between the layers take at most, from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lobit.format import Graph, Node, ValueType

FLOAT_BITS = 32
SUMS = ("linear", "conv2d")
EPILOGUES = ("threshold", "chain")


def value_bits(kind: ValueType) -> int:
    """Bits of one number of a value: those of its code; 32 for floats and sums."""
    return FLOAT_BITS if kind.code is None else kind.code.bits


def value_bytes(kind: ValueType, batch: int = 1, *, as_float: bool = False) -> int:
    """Bytes of a value, its codes packed without gaps: ``batch * ceil(numbers * bits / 8)``."""
    return batch * -(-math.prod(kind.shape) * (FLOAT_BITS if as_float else value_bits(kind)) // 8)


def storage_of(graph: Graph) -> dict[str, str]:
    """The value whose memory each value uses: its own, or that of the image that it flattens."""
    storage = {name: name for name in graph.inputs}
    for node in graph.nodes:
        storage[node.output] = storage[node.inputs[0]] if node.op == "flatten" else node.output
    return storage


def fused_values(graph: Graph) -> frozenset[str]:
    """Integer sums that are never stored: their one reader is a threshold or a chain, which takes them as they are made. Flattening is no reader."""
    storage = storage_of(graph)
    readers: dict[str, list[str]] = {}
    for node in graph.nodes:
        for name in node.inputs if node.op != "flatten" else ():
            readers.setdefault(storage[name], []).append(node.op)
    outputs = {storage[name] for name in graph.outputs}
    return frozenset(
        node.output
        for node in graph.nodes
        if node.op in SUMS and node.output not in outputs and [op in EPILOGUES for op in readers.get(node.output, [])] == [True]
    )


def live_bytes(graph: Graph, batch: int = 1, *, as_float: bool = False) -> Iterator[tuple[Node, int]]:
    """Each node with the bytes of the values that exist while it runs.

    A value exists from the node that makes it (an input of the graph: from the start) to the last node that reads it; an output of the graph to the
    end. A node's inputs and its output exist together. `fused_values` take nothing, and what they were made from exists until their reader has run,
    as both are one loop. A flattened value is its image under another shape: it takes nothing of its own and keeps the image.

    Parameters
    ----------
    graph : Graph
        With ``types`` filled in.
    batch : int
        Samples that run at once.
    as_float : bool
        Count every value as float32, and none of them as fused.
    """
    fused = frozenset[str]() if as_float else fused_values(graph)
    storage = storage_of(graph)
    made_from = {node.output: [storage[name] for name in node.inputs] for node in graph.nodes}
    end = len(graph.nodes)
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            last[storage[name]] = index
            if storage[name] in fused:
                last.update(dict.fromkeys(made_from[storage[name]], index))
    last.update({storage[name]: end for name in graph.outputs})
    sizes = {name: 0 if name in fused else value_bytes(graph.types[name], batch, as_float=as_float) for name in set(storage.values())}
    live = {name: sizes[name] for name in graph.inputs}
    for index, node in enumerate(graph.nodes):
        live[storage[node.output]] = sizes[storage[node.output]]
        yield node, sum(live.values())
        live = {name: size for name, size in live.items() if last.get(name, -1) > index}


def peak_activation_bytes(graph: Graph, batch: int = 1, *, as_float: bool = False) -> int:
    """The most that `live_bytes` gives for any node; at least the inputs."""
    inputs = sum(value_bytes(graph.types[name], batch) for name in graph.inputs)
    return max((size for _, size in live_bytes(graph, batch, as_float=as_float)), default=inputs)
