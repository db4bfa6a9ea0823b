"""Whole networks of random operators: outputs and every stored value equal the reference in every setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.runtime import Session
from tests.runtime.agree import SETTINGS, assert_agrees
from tests.runtime.nets import INPUT_CODES, WEIGHT_CODES, Net

CHANNELS = st.sampled_from([1, 2, 3, 5, 16, 31, 32, 33, 64, 65, 70])


def grow(draw: Any, net: Net, x: str) -> str:
    """Append one random operator that fits the value x."""
    kind = net.kind(x)
    image = len(kind.shape) > 1
    options = {
        "f32": ["codes", "codes", "chain", "add", "concat"] + (["avg_pool", "max_pool", "flatten", "pad", "resize"] if image else []),
        "i32": ["threshold", "threshold", "dequantize", "requantize"] + (["max_pool", "flatten"] if image else []),
        "codes": ["product", "product", "product", "dequantize", "concat"] + (["max_pool", "flatten", "pad", "resize"] if image else []),
    }[kind.kind]
    match draw(st.sampled_from(options)):
        case "codes":
            return net.codes(x, draw(st.sampled_from(INPUT_CODES)))
        case "chain":
            scale = net.rng.uniform(0.5, 2, draw(st.sampled_from([1, kind.shape[0]])))
            return net.chain(x, ("mul", scale), ("add", net.rng.normal(size=kind.shape[0])), ("max", 0.0))
        case "add":
            return net.node("add", (x, draw(st.sampled_from([other for other in values(net) if net.kind(other) == kind]))))
        case "concat":
            others = [other for other in values(net) if replace(net.kind(other), shape=kind.shape) == kind]
            alike = [other for other in others if net.kind(other).shape[1:] == kind.shape[1:]]
            return net.node("concat", (*draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3)), x))
        case "dequantize":
            return net.chain(
                x, "to_float", ("mul", net.rng.normal(scale=0.3, size=kind.shape[0])), ("add", net.rng.normal(size=kind.shape[0]))
            )
        case "requantize":
            return net.chain(x, "to_float", ("div", net.rng.uniform(3, 9, kind.shape[0])), code=draw(st.sampled_from(INPUT_CODES)))
        case "threshold":
            return net.threshold(x, CodeType.parse(draw(st.sampled_from(["odd1", "unsigned1", "odd2", "unsigned2", "ternary2"]))), 10)
        case "flatten":
            return net.node("flatten", (x,))
        case "max_pool" if min(kind.shape[1:]) > 1:
            rows, padding = min(len(kind.shape) - 1, 2), draw(st.sampled_from([(0, 0, 0, 0), (1, 0, 0, 1)]))
            return net.pool(
                "max_pool2d", x, (rows, 2), draw(st.sampled_from([(2, 2), (1, 2)])), padding if rows == 2 else (0, padding[0], 0, 1)
            )
        case "avg_pool" if min(kind.shape[1:]) > 1:
            rows = min(len(kind.shape) - 1, 2)
            return net.pool("avg_pool2d", x, (rows, 2), (1, 1), (0, 1, rows - 1, 0))
        case "pad":
            rows = len(kind.shape) - 2
            padding = [draw(st.integers(0, 2 * side)) for side in (rows, 1, rows, 1)]
            return net.pad(x, padding, draw(st.sampled_from(kind.code.levels)) if kind.code else draw(st.sampled_from([0.0, -0.0, 1.5])))
        case "resize":
            height = draw(st.integers(1, 7)) if len(kind.shape) == 3 else 1
            return net.resize(x, height, draw(st.integers(1, 7)), mixed=kind.code is None and draw(st.booleans()))
        case "product":
            return product(draw, net, x)
    return x


def product(draw: Any, net: Net, x: str) -> str:
    shape, outputs, code = net.kind(x).shape, draw(CHANNELS), draw(st.sampled_from(WEIGHT_CODES))
    if len(shape) == 1:
        return net.linear(x, net.weight(code, outputs, shape[0]))
    groups = draw(st.sampled_from([n for n in (1, 2, 3, shape[0]) if shape[0] % n == 0]))
    kernel = [draw(st.integers(1, 3)) if len(shape) == 3 else 1, draw(st.integers(1, 3))]
    padding = [kernel[axis % 2] - 1 if draw(st.booleans()) else kernel[axis % 2] // 2 for axis in range(4)]
    return net.conv(
        x,
        net.weight(code, max(1, outputs // groups) * groups, shape[0] // groups, *kernel),
        (1, draw(st.integers(1, 2))),
        padding if len(shape) == 3 else [0, padding[1], 0, padding[3]],
        groups=groups,
    )


def values(net: Net) -> list[str]:
    return [*net.inputs, *(node.output for node in net.nodes)]


@st.composite
def networks(draw: Any) -> Net:
    shape = draw(
        st.one_of(st.tuples(CHANNELS), st.tuples(CHANNELS, st.integers(1, 9)), st.tuples(CHANNELS, st.integers(1, 6), st.integers(1, 6)))
    )
    net = Net(draw(st.integers(0, 2**32 - 1)), x=shape)
    x = "x"
    for _ in range(draw(st.integers(1, 9))):
        x = grow(draw, net, draw(st.sampled_from(values(net))) if draw(st.integers(0, 5)) == 0 else x)
    return net


@settings(max_examples=250)
@given(net=networks(), data=st.data(), batch=st.sampled_from([0, 1, 2, 9]), setting=st.sampled_from(SETTINGS))
def test_random_networks(net: Net, data: Any, batch: int, setting: dict[str, Any]) -> None:
    extra = data.draw(st.lists(st.sampled_from(values(net)), max_size=2))
    assert_agrees(net.graph(values(net)[-1], *extra), net.data(batch, scale=4), settings=[setting])


def convnet() -> Net:
    """A small VGG of 65 channels, like the paper's nets: conv, pool, threshold, .., linear, batch norm."""
    net = Net(5, x=(3, 12, 10))
    x = net.chain("x", ("mul", 40.0), ("round"), code=CodeType("signed", 8))
    x = net.threshold(net.conv(x, net.weight(CodeType("odd", 1), 65, 3, 3, 3), padding=(1, 1, 1, 1)), CodeType("odd", 1), 200)
    x = net.pool(
        "max_pool2d", net.conv(x, net.weight(CodeType("odd", 1), 65, 65, 3, 3), padding=(1, 1, 1, 1)), (2, 2), (2, 2), (0, 0, 0, 0)
    )
    x = net.threshold(x, CodeType("unsigned", 2), 30)
    x = net.threshold(net.conv(x, net.weight(CodeType("signed", 2), 65, 65, 3, 3), (2, 1), (1, 1, 1, 1)), CodeType("unsigned", 2), 30)
    x = net.pool("max_pool2d", x, (2, 2), (2, 2), (0, 0, 0, 0))
    x = net.node("flatten", (x,))
    x = net.threshold(net.linear(x, net.weight(CodeType("odd", 2), 100, net.kind(x).shape[0])), CodeType("odd", 1), 20)
    net.chain(
        net.linear(x, net.weight(CodeType("odd", 1), 10, 100)),
        "to_float",
        ("mul", net.rng.normal(size=10)),
        ("add", net.rng.normal(size=10)),
    )
    return net


def test_convnet_at_every_batch_and_setting() -> None:
    net = convnet()
    graph = net.graph()
    for batch in (1, 9, 64):
        assert_agrees(graph, net.data(batch), settings=SETTINGS if batch == 9 else SETTINGS[-2:])


def test_a_sample_has_the_same_result_in_every_batch() -> None:
    net = convnet()
    session, x = Session(net.graph()), net.data(64)
    whole = session(x)
    assert np.array_equal(np.concatenate([session(x[i : i + 1]) for i in range(64)]), whole)
    assert np.array_equal(np.concatenate([session(x[:7]), session(x[7:])]), whole)
