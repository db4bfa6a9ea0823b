"""Chains, thresholds, pools and adds: each operation rounded once, codes and levels exact, in every layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.format import Constant
from lobit.runtime import Session, isas
from tests.runtime.agree import SETTINGS, assert_agrees
from tests.runtime.nets import INPUT_CODES, Net

SHAPES = st.one_of(
    st.tuples(st.integers(1, 300)),
    st.tuples(st.sampled_from([1, 2, 3, 31, 32, 33, 65, 127, 128, 257, 600]), st.integers(1, 4), st.integers(1, 4)),
)
OPERATIONS = ("add", "sub", "mul", "div", "max", "min")


def steps(draw: Any, channels: int, rng: np.random.Generator) -> list[Any]:
    """Random steps with operands of one value or one per channel."""
    made: list[Any] = []
    for op in draw(st.lists(st.sampled_from([*OPERATIONS, "round"]), max_size=5)):
        operand = rng.normal(scale=2, size=draw(st.sampled_from([1, channels])))
        made.append("round" if op == "round" else (op, np.where(np.abs(operand) < 0.1, 0.5, operand)))
    return made


@settings(max_examples=150)
@given(data=st.data(), shape=SHAPES, batch=st.sampled_from([0, 1, 2, 9]), setting=st.sampled_from(SETTINGS))
def test_chain_rounds_each_step_once(data: Any, shape: tuple[int, ...], batch: int, setting: dict[str, Any]) -> None:
    net = Net(data.draw(st.integers(0, 2**32 - 1)), x=shape)
    x = net.node("flatten", ("x",)) if len(shape) == 3 and data.draw(st.booleans()) else "x"
    codes = data.draw(st.sampled_from([None, *INPUT_CODES]))
    zero = data.draw(st.integers(codes.lo, codes.hi)) if codes and codes.alphabet in ("unsigned", "signed") else 0
    x = net.chain(x, *steps(data.draw, net.kind(x).shape[0], net.rng), code=codes, zero=zero)
    if len(shape) == 3 and net.kind(x).shape == shape and data.draw(st.booleans()):
        x = net.node("flatten", (x,))
    if data.draw(st.booleans()):
        first = [] if net.kind(x).kind == "f32" else ["to_float"]
        net.chain(x, *first, *steps(data.draw, net.kind(x).shape[0], net.rng) or ["round"])
    assert_agrees(net.graph(*data.draw(st.sampled_from([(), (x,), (x, x)]))), net.data(batch, scale=5), settings=[setting])


@settings(max_examples=120)
@given(data=st.data(), shape=SHAPES, code=st.sampled_from(["odd1", "unsigned1", "unsigned2", "signed2", "odd2", "ternary2"]))
def test_threshold_of_either_direction(data: Any, shape: tuple[int, ...], code: str) -> None:
    net = Net(data.draw(st.integers(0, 2**32 - 1)), x=shape)
    x = net.codes("x", CodeType("signed", 5))
    channels = shape[0]
    if len(shape) == 3:
        sums = net.conv(x, net.weight(CodeType("signed", 3), channels, 1, 1, 1), groups=channels)
        sums = net.node("flatten", (sums,)) if data.draw(st.booleans()) else sums
    else:
        sums = net.linear(x, net.weight(CodeType("signed", 3), data.draw(st.integers(1, 130)), channels))
    levels = net.threshold(sums, CodeType.parse(code), 20)
    outputs = (levels, sums) if data.draw(st.booleans()) else (levels,)  # the sums as an output forbid the fusion
    setting = data.draw(st.sampled_from(SETTINGS))
    assert_agrees(net.graph(*outputs), net.data(data.draw(st.sampled_from([1, 2, 9])), scale=8), settings=[setting])


@pytest.mark.parametrize("extreme", [-(2**31), 2**31 - 1])
@pytest.mark.parametrize("direction", [-1, 1])
def test_constant_channels(extreme: int, direction: int) -> None:
    net = Net(x=(40,))
    sums = net.linear(net.codes("x", CodeType("odd", 1)), net.weight(CodeType("odd", 1), 40, 40))
    net.node(
        "threshold",
        (sums,),
        {"code": "odd1", "zero": 0},
        thresholds=Constant.from_array(np.full((40, 1), extreme, np.int32)),
        direction=Constant.from_array(np.full(40, direction, np.int32)),
    )
    assert_agrees(net.graph(), net.data(3))
    assert (Session(net.graph())(net.data(1)) == (1 if (extreme < 0) == (direction > 0) else -1)).all()


@settings(max_examples=150)
@given(data=st.data(), op=st.sampled_from(["max_pool2d", "avg_pool2d"]), setting=st.sampled_from(SETTINGS))
def test_pools(data: Any, op: str, setting: dict[str, Any]) -> None:
    draw = data.draw
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    stride = [draw(st.integers(1, 3)) for _ in range(2)]
    dilation = [draw(st.integers(1, 2)) if op == "max_pool2d" else 1 for _ in range(2)]
    padding = [draw(st.integers(0, kernel[axis % 2] // 2)) for axis in range(4)]
    size = [draw(st.integers(5, 8)) for _ in range(2)]
    net = Net(draw(st.integers(0, 2**32 - 1)), x=(draw(st.sampled_from([1, 3, 32, 65, 300])), *size))
    x = "x"
    source = draw(st.sampled_from(["f32", "i32", "codes"])) if op == "max_pool2d" else "f32"
    if source != "f32":
        x = net.codes(x, draw(st.sampled_from(INPUT_CODES)))
    if source == "i32":
        x = net.conv(x, net.weight(CodeType("signed", 2), 7, net.inputs["x"][0], 1, 1))
    x = net.pool(op, x, kernel, stride, padding, dilation)
    if source == "codes" and draw(st.booleans()):
        net.conv(x, net.weight(CodeType("odd", 1), 3, net.inputs["x"][0], 1, 1))
    assert_agrees(net.graph(), net.data(draw(st.sampled_from([1, 3])), scale=20), settings=[setting])


def test_add_of_values_that_lie_differently() -> None:
    net = Net(x=(3, 4, 2), y=(24,))
    image = net.chain("x", ("mul", 2.0))
    flat = net.node("flatten", (image,))
    net.node("add", (flat, net.chain("y", ("add", 1.0))))
    other = net.node("add", ("y", flat))
    net.chain(net.node("add", (other, "y")), ("mul", np.arange(24)))
    assert_agrees(net.graph(*(node.output for node in net.nodes)), net.data(3), net.data(3, "y"))


def test_residual_add_feeds_both_carriers() -> None:
    net = Net(x=(33, 5, 5))
    codes = net.codes("x", CodeType("unsigned", 1))
    weight = net.weight(CodeType("odd", 1), 33, 33, 3, 3)
    left = net.chain(net.conv(codes, weight, padding=(1, 1, 1, 1)), "to_float", ("mul", 0.25))
    right = net.chain(codes, "to_float", ("mul", 3.0))
    net.codes(net.node("add", (left, right)), CodeType("signed", 4))
    graph = net.graph()
    assert_agrees(graph, net.data(2))
    assert any(row.op == "pack" for row in Session(graph, prefer="planes").explain().rows)


def test_nan_and_infinity_become_the_same_codes_on_every_isa() -> None:
    net = Net(x=(70,))
    x = net.chain("x", ("mul", 3e38), ("mul", 3e38))
    x = net.chain(x, ("mul", np.where(np.arange(70) % 2, 1.0, 0.0)))
    net.codes(x, CodeType("signed", 4))
    graph, data = net.graph(), np.linspace(-2, 2, 140, dtype=np.float32).reshape(2, 70)
    outputs = [Session(graph, isa=isa)(data) for isa in isas()]
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
    assert set(np.unique(outputs[0])) <= {-8, 7, 0}


@settings(max_examples=60)
@given(data=st.data(), groups=st.integers(1, 3), channels=st.integers(1, 40), outputs=st.integers(1, 40), linear=st.booleans())
def test_float_layers_are_near_and_the_same_everywhere(data: Any, groups: int, channels: int, outputs: int, linear: bool) -> None:
    size = [data.draw(st.integers(3, 6)) for _ in range(2)]
    net = Net(data.draw(st.integers(0, 2**32 - 1)), x=(channels,) if linear else (channels * groups, *size))
    shape = (outputs, channels) if linear else (outputs * groups, channels, 3, 2)
    weight = Constant.from_array(net.rng.normal(size=shape).astype(np.float32))
    bias = {"bias": Constant.from_array(net.rng.normal(size=shape[0]).astype(np.float32))} if data.draw(st.booleans()) else {}
    attrs = {"stride": [1, 2], "padding": [1, 0, 2, 1], "dilation": [1, 1], "groups": groups}
    net.node("linear_f32" if linear else "conv2d_f32", ("x",), {} if linear else attrs, weight=weight, **bias)
    graph, x = net.graph(), net.data(4)
    from tests.runtime.reference import interpret

    expected = interpret(graph, {"x": x})[graph.outputs[0]]
    got = [Session(graph, isa=isa, threads=threads)(x) for isa in isas() for threads in (1, 2)]
    bound = 2**-22 * np.sqrt(weight.data[0].size) * (np.abs(expected).max(initial=1) + np.abs(x).max() * np.abs(weight.data).max())
    assert np.abs(got[0] - expected).max() <= bound * weight.data[0].size
    assert all(np.array_equal(other, got[0]) for other in got)
    assert np.array_equal(Session(graph)(x[:1]), got[0][:1])
    assert Session(graph).explain().rows[-1].inexact or Session(graph).explain().rows[-2].inexact
