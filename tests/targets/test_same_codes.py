"""Exported C computes what the engine computes, byte for byte, and what the reference of the tests computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.format import Graph
from lobit.format.table import MAX_SUM
from lobit.runtime import Session
from tests.runtime.nets import INPUT_CODES, WEIGHT_CODES, Net
from tests.runtime.reference import interpret
from tests.targets.machine import Program, need
from tests.targets.random_nets import extreme_layer, layer, network

SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILERS = [("gcc", ["-O2"]), ("gcc", SANITIZED), ("clang", ["-O2"])]
SEEDS = st.integers(0, 2**32 - 1)


def assert_same(program: Program, index: int, *inputs: np.ndarray[Any, Any]) -> None:
    graph = program.graphs[index]
    got = program(index, *inputs)
    session = Session(graph)(*inputs)
    with np.errstate(all="ignore"):
        expected = interpret(graph, dict(zip(graph.inputs, inputs, strict=True)))
    for name, mine, theirs in zip(graph.outputs, got, session if isinstance(session, tuple) else (session,), strict=True):
        assert np.array_equal(mine, expected[name], equal_nan=True), (index, name, graph.nodes)
        both_nan = np.isnan(mine) & np.isnan(theirs)  # the payload of a NaN is nobody's promise
        assert (mine.view(f"u{mine.itemsize}") == theirs.view(f"u{theirs.itemsize}"))[~both_nan].all(), (index, name)


def check(folder: Path, cases: list[tuple[Graph, np.ndarray[Any, Any]]], compiler: str, flags: list[str]) -> None:
    program = Program(folder, [graph for graph, _ in cases], compiler, flags)
    for index, (_, x) in enumerate(cases):
        assert_same(program, index, x)


@pytest.mark.parametrize(("compiler", "flags"), COMPILERS, ids=["gcc", "sanitized", "clang"])
@settings(max_examples=3)
@given(seeds=st.lists(SEEDS, min_size=14, max_size=14))
def test_layers_of_every_alphabet_and_geometry(tmp_path_factory: Any, compiler: str, flags: list[str], seeds: list[int]) -> None:
    need(compiler)
    check(tmp_path_factory.mktemp("layers"), [layer(seed) for seed in seeds], compiler, flags)


@pytest.mark.parametrize(("compiler", "flags"), COMPILERS, ids=["gcc", "sanitized", "clang"])
@settings(max_examples=3)
@given(seeds=st.lists(SEEDS, min_size=7, max_size=7))
def test_networks_of_all_operators(tmp_path_factory: Any, compiler: str, flags: list[str], seeds: list[int]) -> None:
    need(compiler)
    cases = [(graph, x) for seed in seeds for graphs in [network(seed)] for graph, x in ((graphs[0], graphs[2]), (graphs[1], graphs[2]))]
    check(tmp_path_factory.mktemp("networks"), cases, compiler, flags)


def test_every_pair_of_alphabets_at_its_extreme_sums(tmp_path: Path) -> None:
    """All codes at their bounds; with as many inputs as 32 bits allow, or 70."""
    need("gcc")
    cases = [extreme_layer(code, WEIGHT_CODES, 0, 70) for code in INPUT_CODES]
    for code, zero, weight in (
        (CodeType("unsigned", 8), 0, CodeType("odd", 8)),
        (CodeType("unsigned", 8), 255, CodeType("unsigned", 8)),
        (CodeType("signed", 8), -128, CodeType("odd", 8)),
        (CodeType("signed", 8), 127, CodeType("signed", 8)),
    ):
        largest = max(abs(code.lo - zero), abs(code.hi - zero)) * weight.max_abs
        cases.append(extreme_layer(code, [weight], zero, MAX_SUM // largest))
    check(tmp_path, cases, "gcc", SANITIZED)


SPECIAL = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.49999997,
    0.50000006,
    -0.3,
    1e-45,
    -1e-45,
    8388607.5,
    8388608.0,
    -8388609.0,
    4194303.75,
    3e38,
    -3e38,
    127.5,
    128.5,
    *(
        sign * float(np.nextafter(np.float32(end * 2.0**e), np.float32(to)))
        for sign in (1, -1)
        for e in range(-2, 8)
        for end in (1, 2**0.5)
        for to in (0, 1e9)
    ),
]


@pytest.mark.parametrize("code", [None, *INPUT_CODES], ids=str)
def test_rounding_of_special_floats(code: CodeType | None, tmp_path: Path) -> None:
    need("gcc")
    net = Net(0, x=(len(SPECIAL),))
    net.chain("x", "round", code=code) if code is None else net.codes("x", code)
    check(tmp_path, [(net.graph(), np.array([SPECIAL], np.float32))], "gcc", ["-O2"])


@pytest.mark.parametrize("steps", [255, 256, 300, 1023])
def test_chains_as_long_as_a_file_may_have(steps: int, tmp_path: Path) -> None:
    need("gcc")
    net = Net(0, x=(3,))
    graph = net.graph(net.chain("x", *[("add", float(i % 7) - 2.5) for i in range(steps)]))
    check(tmp_path, [(graph, np.array([[0.5, -3.0, 1e6]], np.float32))], "gcc", SANITIZED)


def test_a_nan_of_the_networks_own_arithmetic_is_the_lowest_code(tmp_path: Path) -> None:
    need("gcc")
    codes = [CodeType("unsigned", 3), CodeType("signed", 8), CodeType("odd", 1), CodeType("log2", 3)]
    net = Net(0, x=(2, 1, 2))
    infinite = net.chain("x", ("mul", 3e38), ("mul", 10.0))
    nan = net.node("add", (infinite, net.chain(infinite, ("mul", -1.0))))
    graph = net.graph(*(net.codes(nan, code) for code in codes))
    x = np.array([[[[1.0, -1.0]], [[-3.0, 2.0]]]], np.float32)
    for code, mine, theirs in zip(codes, Program(tmp_path, [graph])(0, x), Session(graph)(x), strict=True):
        assert (mine == code.lo).all()
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("code", ["odd1", "unsigned2"])
def test_thresholds_of_one_channel_on_stored_sums(code: str, tmp_path: Path) -> None:
    need("gcc")
    net = Net(4, x=(3, 6, 7))
    sums = net.conv(net.codes("x", CodeType("signed", 4)), net.weight(CodeType("signed", 4), 1, 3, 2, 2))
    graph = net.graph(sums, net.threshold(sums, CodeType.parse(code), 20.0))
    check(tmp_path, [(graph, net.data(3, scale=8))], "gcc", SANITIZED)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    need("gcc")
    net = Net(3, a=(3, 4, 5), b=(3, 4, 5))
    total = net.node("add", ("a", net.chain("b", ("mul", [0.5, 2.0, -1.0]))))
    codes = net.codes(total, CodeType("signed", 4))
    sums = net.conv(codes, net.weight(CodeType("odd", 1), 6, 3, 2, 2))
    graph = net.graph(sums, total, codes, "b")
    check_inputs = [net.data(3, "a", 4.0), net.data(3, "b", 4.0)]
    assert_same(Program(tmp_path, [graph]), 0, *check_inputs)


def test_codes_give_what_floats_give_and_wrong_codes_are_refused(tmp_path: Path) -> None:
    need("gcc")
    graphs, data = [], []
    for code in (CodeType("unsigned", 8), CodeType("unsigned", 3), CodeType("signed", 5), CodeType("odd", 1), CodeType("ternary", 2)):
        net = Net(1, x=(3, 4, 4))
        net.conv(net.codes("x", code), net.weight(CodeType("signed", 4), 5, 3, 3, 3), padding=(1, 1, 1, 1))
        graphs.append(net.graph())
        data.append((code, net.data(4, scale=code.hi)))
    program = Program(tmp_path, graphs)
    for index, (code, x) in enumerate(data):
        codes = interpret(graphs[index], {"x": x})["v0"].astype(np.uint8 if code.alphabet == "unsigned" else np.int8)
        assert np.array_equal(program(index, codes, codes=True)[0], program(index, x)[0])
        if code.hi < 127:
            codes[3, 1, 2, 3] = code.hi + 1
            with pytest.raises(AssertionError):
                program(index, codes, codes=True)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_input_that_is_not_finite_is_refused_as_a_session_refuses_it(bad: float, tmp_path: Path) -> None:
    need("gcc")
    net = Net(0, x=(5,))
    net.codes("x", CodeType("unsigned", 8))
    x = np.ones((1, 5), np.float32)
    program = Program(tmp_path, [net.graph()])
    program(0, x)
    x[0, 4] = bad
    with pytest.raises(AssertionError):
        program(0, x)
