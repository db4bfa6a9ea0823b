"""Memory of random networks, beside the engine and beside a definition so plain that it can only be right."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.report.cost import cost_of
from lobit.report.memory import fused_values, live_bytes, peak_activation_bytes
from lobit.runtime import Session
from tests.runtime.nets import Net
from tests.runtime.test_networks import networks, values


def drawn(net, data):
    return net.graph(*data.draw(st.lists(st.sampled_from(values(net)), min_size=1, max_size=2, unique=True)))


@settings(max_examples=100)
@given(net=networks(), data=st.data())
def test_the_engine_stores_what_is_not_fused_and_multiplies_as_often(net, data):
    graph = drawn(net, data)
    session = Session(graph)
    flat = {node.output for node in graph.nodes if node.op == "flatten"}
    assert set(session.value_names) - flat == {node.output for node in graph.nodes} - fused_values(graph) - flat
    assert sum(row.macs for row in session.explain().rows) == cost_of(graph).macs


def exists(graph, name, index, fused):
    """Whether a value takes memory while node ``index`` runs: it was made, and somebody from here on reads it, directly, as a flattened image, or
    through sums that are made as they are read."""
    made = -1 if name in graph.inputs else next(at for at, node in enumerate(graph.nodes) if node.output == name)

    def needed(value):
        if value in graph.outputs:
            return math.inf
        reads = [made if value == name else -1]
        for at, node in enumerate(graph.nodes):
            if value in node.inputs:
                reads.append(at)
                if node.op == "flatten" or node.output in fused:
                    reads.append(needed(node.output))
        return max(reads)

    return made <= index <= needed(name)


@settings(max_examples=100)
@given(net=networks(), data=st.data(), as_float=st.booleans())
def test_live_values_are_those_that_were_made_and_are_still_read(net, data, as_float):
    graph = drawn(net, data)
    fused = set() if as_float else fused_values(graph)
    flat = {node.output for node in graph.nodes if node.op == "flatten"}
    for index, (_, size) in enumerate(live_bytes(graph, as_float=as_float)):
        expected = 0
        for name, kind in graph.types.items():
            if name not in fused | flat and exists(graph, name, index, fused):
                bits = 32 if as_float or kind.code is None else kind.code.bits
                expected += math.ceil(math.prod(kind.shape) * bits / 8)
        assert size == expected


def test_a_network_without_operators_holds_its_input():
    assert peak_activation_bytes(Net(x=(3,)).graph("x"), batch=2) == 2 * 3 * 4
