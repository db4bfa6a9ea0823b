"""Linear layers and convolutions: every alphabet, width, shape and setting gives the exact sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import Alphabet, CodeType
from lobit.format import Constant
from lobit.runtime import Session, isas
from tests.runtime.agree import SETTINGS, assert_agrees
from tests.runtime.nets import INPUT_CODES, WEIGHT_CODES, Net

CHANNELS = st.one_of(st.sampled_from([1, 3, 4, 31, 32, 33, 63, 64, 65, 128, 130]), st.integers(1, 130))


def zeros(draw: Any, code: CodeType) -> int:
    movable = code.alphabet in (Alphabet.UNSIGNED, Alphabet.SIGNED)
    return int(draw(st.integers(code.lo, code.hi))) if movable else 0


@st.composite
def convolutions(draw: Any) -> tuple[Net, str, int]:
    """A convolution on codes of an input image."""
    code, weight = draw(st.sampled_from(INPUT_CODES)), draw(st.sampled_from(WEIGHT_CODES))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depthwise = draw(st.integers(0, 5)) == 0
    channels = draw(st.integers(1, 40)) if depthwise else draw(CHANNELS) * groups
    groups = channels if depthwise else groups
    outputs = draw(st.integers(1, 3 if depthwise else 70)) * groups
    kernel, stride, dilation = ([draw(st.integers(1, n)) for _ in range(2)] for n in (4, 3, 2))
    padding = [draw(st.integers(0, 3)) for _ in range(4)]
    size = []
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - padding[axis + 2]
        size.append(draw(st.integers(max(1, reach), max(1, reach) + 4)))
    net = Net(draw(st.integers(0, 2**32 - 1)), x=(channels, *size))
    zero = zeros(draw, code)
    x = net.codes("x", code, zero)
    y = net.conv(x, net.weight(weight, outputs, channels // groups, *kernel), stride, padding, dilation, groups)
    return net, y, code.hi


@settings(max_examples=250)
@given(case=convolutions(), batch=st.sampled_from([0, 1, 2, 9]), setting=st.sampled_from(SETTINGS))
def test_convolution_equals_the_reference(case: tuple[Net, str, int], batch: int, setting: dict[str, Any]) -> None:
    net, _, scale = case
    assert_agrees(net.graph(), net.data(batch, scale=scale), settings=[setting])


@settings(max_examples=120)
@given(data=st.data(), inputs=CHANNELS, outputs=CHANNELS, batch=st.sampled_from([0, 1, 2, 9, 64]), setting=st.sampled_from(SETTINGS))
def test_linear_equals_the_reference(data: Any, inputs: int, outputs: int, batch: int, setting: dict[str, Any]) -> None:
    code, weight = data.draw(st.sampled_from(INPUT_CODES)), data.draw(st.sampled_from(WEIGHT_CODES))
    net = Net(data.draw(st.integers(0, 2**32 - 1)), x=(inputs,))
    net.linear(net.codes("x", code, zeros(data.draw, code)), net.weight(weight, outputs, inputs))
    assert_agrees(net.graph(), net.data(batch, scale=code.hi), settings=[setting])


@pytest.mark.parametrize("weight", WEIGHT_CODES, ids=str)
def test_every_pair_of_code_types_at_its_extremes(weight: CodeType) -> None:
    rng = np.random.default_rng(1)
    for code in INPUT_CODES:
        x = rng.choice(np.array([code.lo, code.hi], np.float32), (3, 70))
        x[0] = code.hi
        weights = rng.choice([weight.lo, weight.hi], (5, 70))
        weights[0], weights[1] = weight.hi, weight.lo
        for zero in {0, code.lo, code.hi} if code.alphabet in (Alphabet.UNSIGNED, Alphabet.SIGNED) else {0}:
            net = Net(x=(70,))
            net.linear(net.codes("x", code, zero), Constant.from_codes(weights, weight))
            graph = net.graph()
            for isa, prefer in ((isa, prefer) for isa in isas() for prefer in ("planes", "bytes")):
                codes = x.astype(np.int64) + (0 if code.alphabet is Alphabet.ODD else zero)
                expected = (np.clip(codes, code.lo, code.hi) - zero) @ weights.T
                assert np.array_equal(Session(graph, isa=isa, prefer=prefer)(x), expected), (code, zero, isa, prefer)


@pytest.mark.parametrize("code", ["unsigned8", "signed8", "odd1", "unsigned4"])
@pytest.mark.parametrize("weight", ["unsigned8", "signed8", "odd8", "odd4", "log24"])
def test_longest_sums_of_extreme_codes(code: str, weight: str) -> None:
    x_code, w_code = CodeType.parse(code), CodeType.parse(weight)
    weights = np.full((3, 4096), w_code.hi)
    weights[1] = w_code.lo
    weights[2, ::2] = w_code.lo
    net = Net(x=(4096,))
    net.linear(net.codes("x", x_code), Constant.from_codes(weights, w_code))
    x = np.full((2, 4096), x_code.hi, np.float32)
    x[1] = x_code.lo
    assert_agrees(net.graph(), x)


def test_a_sum_at_the_very_bound_of_32_bits() -> None:
    inputs = (2**31 - 1) // (255 * 255)
    net = Net(x=(inputs,))
    code = CodeType("unsigned", 8)
    net.linear(net.codes("x", code), Constant.from_codes(np.full((2, inputs), 255), code))
    got = Session(net.graph())(np.full((1, inputs), 255, np.float32))
    assert got.tolist() == [[inputs * 255 * 255] * 2]


@pytest.mark.parametrize("prefer", ["planes", "bytes"])
@pytest.mark.parametrize("code", ["odd1", "unsigned2", "ternary2", "signed4"])
def test_linear_after_flatten_of_65_channels(code: str, prefer: Any) -> None:
    kind = CodeType.parse(code)
    net = Net(7, x=(65, 3, 2))
    net.linear(net.node("flatten", (net.codes("x", kind),)), net.weight(kind, 33, 65 * 6))
    assert_agrees(net.graph(), net.data(5, scale=kind.hi), settings=[s for s in SETTINGS if s["prefer"] == prefer])


@pytest.mark.parametrize("kind", ["odd1", "unsigned2"])
def test_padding_is_real_zero_at_every_border_class(kind: str) -> None:
    code = CodeType.parse(kind)
    net = Net(3, x=(5, 4, 5))
    net.conv(net.codes("x", code), net.weight(CodeType("odd", 1), 6, 5, 3, 3), (1, 1), (2, 1, 3, 2), (2, 1))
    assert_agrees(net.graph(), net.data(2))


def test_padding_of_a_moved_zero_is_that_code() -> None:
    code = CodeType("unsigned", 4)
    net = Net(3, x=(5, 4, 5))
    net.conv(net.codes("x", code, 11), net.weight(CodeType("signed", 3), 6, 5, 3, 3), (1, 1), (1, 1, 1, 1))
    assert_agrees(net.graph(), net.data(2, scale=9))
