"""Codes that are powers of two: rounded by the mantissa at the root of two, on every instruction set, and read by products as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.format import Graph
from lobit.runtime import Session, isas
from tests.runtime.agree import SETTINGS, assert_agrees
from tests.runtime.nets import WEIGHT_CODES, Net
from tests.runtime.powers import CODES, boundaries, expected


@pytest.mark.parametrize("code", CODES, ids=str)
def test_every_boundary_is_rounded_as_defined_on_every_instruction_set(code: CodeType) -> None:
    x = boundaries()
    wanted = [expected(float(value), code) for value in x]
    assert set(wanted) == set(code.levels)
    net = Net(x=(len(x),))
    net.codes("x", code)
    for isa in isas():
        assert Session(net.graph(), isa=isa)(x[None])[0].tolist() == wanted


@settings(max_examples=50)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=300))
def test_any_float_is_rounded_as_defined(bits: list[int]) -> None:
    x = np.array(bits, np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    for code in CODES if len(x) else []:
        net = Net(x=(len(x),))
        net.codes("x", code)
        wanted = [expected(float(value), code) for value in x]
        assert all(Session(net.graph(), isa=isa)(x[None])[0].tolist() == wanted for isa in isas())


def test_nan_has_the_lowest_code_and_infinity_the_last() -> None:
    net = Net(x=(70,))
    x = net.chain("x", ("mul", 3e38), ("mul", 3e38))
    x = net.chain(x, ("mul", np.where(np.arange(70) % 2, 1.0, 0.0)))
    net.codes(x, CodeType("log2", 4))
    data = np.linspace(-2, 2, 140, dtype=np.float32).reshape(2, 70)
    with np.errstate(all="ignore"):
        wanted = np.where(np.arange(70) % 2, np.sign(data) * 64, -64)
    for isa in isas():
        assert np.array_equal(Session(net.graph(), isa=isa)(data), wanted)


def layer(weight: CodeType, code: CodeType, groups: int, channels: int) -> Graph:
    net = Net(channels, x=(channels * groups, 5, 6))
    codes = net.codes("x", code)
    sums = net.conv(codes, net.weight(weight, 4 * groups, channels, 3, 2), padding=(2, 0, 1, 1), groups=groups)
    again = net.chain(sums, "to_float", ("mul", 0.03), code=code)
    pooled = net.pool("max_pool2d", again, (2, 2), (2, 2), (1, 0, 0, 0))
    return net.graph(net.linear(net.node("flatten", (net.node("concat", (pooled, pooled)),)), net.weight(weight, 7, 8 * groups * 9)), again)


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("weight", [code for code in WEIGHT_CODES if code.bits in (1, 4, 8)], ids=str)
@pytest.mark.parametrize("setting", SETTINGS[:: max(1, len(SETTINGS) // 6)], ids=str)
def test_products_of_powers_with_weights_of_every_kind(code: CodeType, weight: CodeType, setting: dict[str, Any]) -> None:
    for groups, channels in ((1, 33), (3, 2)):
        graph = layer(weight, code, groups, channels)
        x = (np.random.default_rng(1).normal(size=(3, channels * groups, 5, 6)) * 30).astype(np.float32)
        assert_agrees(graph, x, settings=[setting])


def test_powers_run_as_bytes_whatever_is_preferred() -> None:
    graph = layer(CodeType("odd", 1), CODES[0], 1, 33)
    rows = Session(graph, prefer="planes").explain().rows
    assert {row.carrier for row in rows if row.op.startswith(("conv2d", "linear"))} == {"bytes"}
    assert any("log2 codes run as bytes" in row.reason for row in rows)
