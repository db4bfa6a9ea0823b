"""Passes over a captured graph: pure functions, each exact to the last bit, that bring layers and their chains together."""

from __future__ import annotations

from collections.abc import Callable

from lobit.capture.passes.concat import chain_before_concat
from lobit.capture.passes.dead import drop_dead
from lobit.capture.passes.flatten import move_chains_before_flatten
from lobit.capture.passes.merge import merge_chains
from lobit.capture.passes.pads import pad_after_codes, pad_into_layer
from lobit.capture.passes.pools import pool_after_codes, pool_before_chain
from lobit.capture.passes.resize import resize_after_chain
from lobit.capture.passes.simplify import drop_idle_steps
from lobit.capture.passes.thresholds import fold_thresholds
from lobit.format import Graph, check_graph

Pass = Callable[[Graph], Graph]

REORDER: tuple[Pass, ...] = (
    drop_dead,
    move_chains_before_flatten,
    merge_chains,
    drop_idle_steps,
    pool_before_chain,
    pool_after_codes,
    pad_after_codes,
    pad_into_layer,
    resize_after_chain,
    chain_before_concat,
    merge_chains,
)


def run_passes(graph: Graph) -> Graph:
    """Reorder and shorten until nothing moves any more, then fold thresholds. The values that layers read keep their names."""
    graph = check_graph(graph)
    while True:
        before = graph
        for step in REORDER:
            graph = step(graph)
        if [node.name for node in graph.nodes] == [node.name for node in before.nodes]:
            return fold_thresholds(graph)


__all__ = [
    "REORDER",
    "Pass",
    "chain_before_concat",
    "drop_dead",
    "drop_idle_steps",
    "fold_thresholds",
    "merge_chains",
    "move_chains_before_flatten",
    "pad_after_codes",
    "pad_into_layer",
    "pool_after_codes",
    "pool_before_chain",
    "resize_after_chain",
    "run_passes",
]
