"""Passes: every one leaves every output bit for bit as it was, on random graphs; each does what it says where it should and where it should not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.capture.passes import (
    REORDER,
    drop_dead,
    drop_idle_steps,
    fold_thresholds,
    merge_chains,
    move_chains_before_flatten,
    pool_after_codes,
    pool_before_chain,
    run_passes,
)
from lobit.capture.passes.thresholds import INT32_MAX, INT32_MIN, Levels, bisect
from lobit.format import Graph
from tests.runtime.nets import Net
from tests.runtime.reference import interpret

PASSES = [*dict.fromkeys(REORDER), fold_thresholds, run_passes]
OPERANDS = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.37, 1.0, 1.5, 7.0]
NARROW = [CodeType.parse(name) for name in ("odd1", "unsigned1", "unsigned2", "signed2", "ternary2")]
CODES = [*NARROW, CodeType.parse("unsigned4"), CodeType.parse("signed8"), CodeType.parse("log22"), CodeType.parse("log24")]


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def same_bits(before: Graph, after: Graph, **inputs: np.ndarray[Any, Any]) -> None:
    """The outputs of both, compared as bytes, so that -0 is not +0."""
    with np.errstate(all="ignore"):
        ours, theirs = interpret(before, inputs), interpret(after, inputs)
    for old, new in zip(before.outputs, after.outputs, strict=True):
        assert before.types[old] == after.types[new]
        assert ours[old].dtype == theirs[new].dtype
        assert ours[old].tobytes() == theirs[new].tobytes()


@st.composite
def steps(draw: Any, channels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(draw(st.integers(0, 4))):
        op = draw(st.sampled_from(["add", "sub", "mul", "div", "max", "min", "round"]))
        allowed = st.sampled_from([value for value in OPERANDS if value or op != "div"])
        count = draw(st.sampled_from([1, channels]))
        found.append("round" if op == "round" else (op, draw(st.lists(allowed, min_size=count, max_size=count))))
    return found


@st.composite
def graphs(draw: Any) -> tuple[Net, Graph]:
    """A layer, then chains, pools and a flatten in any order, here and there with a second reader, then codes and a second layer."""
    channels = draw(st.integers(1, 4))
    net = Net(draw(st.integers(0, 2**31)), x=(2, 5, 5))
    x = net.codes("x", draw(st.sampled_from(CODES)))
    x = net.conv(x, net.weight(draw(st.sampled_from([CodeType.parse("odd1"), CodeType.parse("signed4")])), channels, 2, 2, 2))
    read: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = net.kind(x)
        match draw(st.sampled_from(["chain", "chain", "pool", "pad", "join", "flatten", "read"])):
            case "chain":
                start = ["to_float"] if kind.kind != "f32" else []
                x = net.chain(x, *start, *draw(steps(kind.shape[0])))
            case "pool" if len(kind.shape) == 3 and min(kind.shape[1:]) >= 2:
                x = net.pool("max_pool2d", x, (2, 2), (draw(st.integers(1, 2)), 1), draw(st.sampled_from([(0, 0, 0, 0), (1, 0, 0, 1)])))
            case "pad" if len(kind.shape) == 3 and kind.kind == "f32":
                x = net.pad(x, [draw(st.integers(0, 2)) for _ in range(4)], draw(st.sampled_from([0.0, -0.0, -1.0, 3e38])))
            case "join" if kind.kind == "f32":
                branches = [net.chain(x, *draw(steps(kind.shape[0])), ("add", float(count))) for count in range(draw(st.integers(1, 2)))]
                x = net.node("concat", (*branches, net.chain(x, "round") if draw(st.booleans()) else x))
            case "flatten" if len(kind.shape) == 3:
                x = net.node("flatten", (x,))
            case "read":
                read.append(x)
    kind = net.kind(x)
    start = ["to_float"] if kind.kind != "f32" else []
    x = net.chain(x, *start, *draw(steps(kind.shape[0])), code=draw(st.sampled_from(CODES)))
    after = draw(st.sampled_from(["", "flatten", "conv"]))
    if after == "conv" and len(kind.shape) == 3:
        return net, net.graph(
            *dict.fromkeys(read), net.conv(x, net.weight(CodeType("odd", 1), 2, kind.shape[0], 1, 1), padding=(0, 1, 1, 0))
        )
    if after == "flatten" and len(kind.shape) == 3:
        x = net.node("flatten", (x,))
    outputs = [*dict.fromkeys(read), x]
    if draw(st.booleans()) and len(net.kind(x).shape) == 1:
        outputs.append(net.linear(x, net.weight(CodeType("odd", 1), 3, net.kind(x).shape[0])))
    return net, net.graph(*outputs)


@settings(max_examples=150)
@given(case=graphs())
def test_every_pass_keeps_every_output_bit(case: tuple[Net, Graph]) -> None:
    net, graph = case
    x = net.data(4, scale=3)
    for change in PASSES:
        same_bits(graph, change(graph), x=x)


@settings(max_examples=50)
@given(case=graphs())
def test_running_the_passes_again_changes_nothing(case: tuple[Net, Graph]) -> None:
    once = run_passes(case[1])
    twice = run_passes(once)
    assert once.nodes == twice.nodes
    assert once.constants.keys() == twice.constants.keys()


def convnet(*after: Any, pool: bool = True, code: str = "odd1") -> tuple[Net, Graph]:
    """Convolution, a chain of the steps ``after``, a max pool, and codes."""
    net = Net(1, x=(3, 6, 6))
    x = net.conv(net.codes("x", CodeType.parse("unsigned2")), net.weight(CodeType("odd", 1), 4, 3, 3, 3))
    x = net.chain(x, "to_float", *after)
    x = net.pool("max_pool2d", x, (2, 2), (2, 2), (0, 0, 0, 0)) if pool else x
    return net, net.graph(net.codes(x, CodeType.parse(code)))


def test_a_pool_moves_ahead_of_a_chain_that_never_falls_and_the_rest_folds() -> None:
    net, graph = convnet(("mul", [0.5, 1.0, 0.0, 2.0]), ("add", -1.0))
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "max_pool2d", "threshold"]
    assert after.types[after.nodes[2].output].kind == "i32"
    assert after.outputs == graph.outputs
    same_bits(graph, after, x=net.data(5))


def test_a_pool_moves_behind_the_codes_where_a_channel_falls() -> None:
    net, graph = convnet(("mul", [0.5, -1.0, 0.0, 2.0]), ("add", -1.0))
    assert ops(pool_before_chain(graph)) == ops(graph)
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "threshold", "max_pool2d"]
    assert after.outputs == graph.outputs
    same_bits(graph, after, x=net.data(5))


def test_a_pool_stays_where_its_chain_has_a_second_reader() -> None:
    net = Net(1, x=(3, 6, 6))
    chained = net.chain("x", ("mul", 2.0))
    pooled = net.pool("max_pool2d", chained, (2, 2), (2, 2), (0, 0, 0, 0))
    graph = net.graph(pooled, chained)
    assert pool_before_chain(graph) == graph
    assert pool_after_codes(graph) == graph


def test_a_chain_with_two_readers_is_not_merged_into_either() -> None:
    net = Net(0, x=(4,))
    shared = net.chain("x", ("mul", 3.0))
    graph = net.graph(net.chain(shared, ("add", 1.0)), net.chain(shared, ("add", 2.0)))
    assert merge_chains(graph) == graph


def test_a_per_channel_chain_stays_behind_a_flatten_and_a_scalar_one_moves() -> None:
    for constant, expected in ((np.arange(1.0, 13.0), ["flatten", "chain"]), (2.0, ["chain", "flatten"])):
        net = Net(0, x=(3, 2, 2))
        flat = net.node("flatten", ("x",))
        graph = net.graph(net.chain(flat, ("div", constant), code=CodeType.parse("signed4")))
        after = move_chains_before_flatten(graph)
        assert ops(after) == expected
        assert after.outputs == graph.outputs
        same_bits(graph, after, x=net.data(3))


def padded_layer(value: float, code: str, *steps_before: Any, zero: int = 0, pool: bool = False) -> tuple[Net, Graph]:
    """Convolution, padding of its floats, a chain to codes of these steps, and a second convolution that pads too."""
    net = Net(1, x=(3, 6, 6))
    x = net.conv(net.codes("x", CodeType.parse("signed4")), net.weight(CodeType("odd", 1), 4, 3, 3, 3))
    x = net.pad(net.chain(x, "to_float", ("mul", 0.3)), (0, 1, 2, 3), value)
    x = net.chain(x, *steps_before, code=CodeType.parse(code), zero=zero)
    x = net.pool("max_pool2d", x, (2, 2), (2, 2), (0, 0, 0, 0)) if pool else x
    return net, net.graph(net.conv(x, net.weight(CodeType("odd", 1), 5, 4, 2, 2), padding=(1, 0, 0, 1)))


@pytest.mark.parametrize(("code", "zero"), [("unsigned2", 0), ("signed4", 0), ("unsigned4", 5), ("ternary2", 0)])
def test_zero_padding_of_floats_becomes_padding_of_the_layer_that_reads_their_codes(code: str, zero: int) -> None:
    net, graph = padded_layer(0.0, code, ("div", 0.4), zero=zero)
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "threshold" if code in ("unsigned2", "ternary2") else "chain", "conv2d"]
    assert after.nodes[-1].attrs["padding"] == [1, 1, 2, 4]
    assert after.nodes[-1].inputs == graph.nodes[-1].inputs  # the codes keep their name
    same_bits(graph, after, x=net.data(5, scale=3))


@pytest.mark.parametrize(("value", "code", "steps_before"), [(0.0, "odd1", []), (1.5, "unsigned4", []), (0.0, "signed4", [("add", 2.0)])])
def test_padding_that_is_no_real_zero_stays_padding_of_codes(value: float, code: str, steps_before: list[Any]) -> None:
    net, graph = padded_layer(value, code, *steps_before)
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "threshold" if code == "odd1" else "chain", "pad2d", "conv2d"]
    assert after.nodes[-2].attrs["value"] == {"odd1": 1, "unsigned4": 2, "signed4": 2}[code]
    same_bits(graph, after, x=net.data(5, scale=3))


def test_padding_stays_ahead_of_a_chain_whose_code_of_it_differs_by_channel() -> None:
    net, graph = padded_layer(0.0, "signed4", ("add", [0.0, 1.0, 2.0, 3.0]))
    after = run_passes(graph)
    assert ops(after)[2:] == ["chain", "pad2d", "chain", "conv2d"]
    same_bits(graph, after, x=net.data(5, scale=3))


def test_padding_stays_ahead_of_a_chain_that_overflows_on_it() -> None:
    _, graph = padded_layer(3e38, "signed4", ("mul", 10.0))
    assert ops(run_passes(graph))[2:] == ["chain", "pad2d", "chain", "conv2d"]


def test_padding_does_not_merge_into_a_max_pool_whose_padding_never_wins() -> None:
    net, graph = padded_layer(0.0, "signed4", pool=True)
    after = run_passes(graph)
    assert ops(after)[3:] == ["pad2d", "max_pool2d", "conv2d"]
    same_bits(graph, after, x=net.data(5, scale=3))


def test_padding_with_two_readers_stays() -> None:
    net = Net(0, x=(2, 3, 3))
    padded = net.pad("x", (1, 1, 1, 1), 0.0)
    graph = net.graph(net.codes(padded, CodeType.parse("signed4")), padded)
    assert run_passes(graph).nodes == graph.nodes
    net = Net(0, x=(2, 3, 3))
    padded = net.pad(net.codes("x", CodeType.parse("signed4")), (1, 1, 1, 1), 0)
    graph = net.graph(net.conv(padded, net.weight(CodeType("odd", 1), 2, 2, 2, 2)), padded)
    assert run_passes(graph).nodes == graph.nodes


def test_zero_padding_of_floats_merges_into_a_float_layer() -> None:
    net = Net(0, x=(2, 3, 3))
    graph = net.graph(net.conv(net.pad("x", (1, 2, 0, 1), 0.0), net.weight_f32(3, 2, 2, 2)))
    after = run_passes(graph)
    assert ops(after) == ["conv2d_f32"]
    assert after.nodes[0].attrs["padding"] == [1, 2, 0, 1]
    same_bits(graph, after, x=net.data(3))


def branches(read: bool) -> tuple[Net, Graph]:
    """Two convolutions whose floats are joined and become codes; with ``read`` the second one's floats are an output too."""
    net = Net(1, x=(3, 6, 6))
    codes = net.codes("x", CodeType.parse("signed4"))
    floats = [net.chain(net.conv(codes, net.weight(CodeType("odd", 1), n, 3, 3, 3)), "to_float", ("mul", 0.3)) for n in (2, 4)]
    joined = net.chain(net.node("concat", tuple(floats)), ("add", np.arange(6.0) - 3), ("div", 0.5), code=CodeType.parse("signed2"))
    return net, net.graph(joined, *floats[1:] * read)


def test_a_chain_behind_a_concatenation_joins_each_layer_ahead_of_it() -> None:
    net, graph = branches(read=False)
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "conv2d", "threshold", "threshold", "concat"]
    assert after.outputs == graph.outputs
    same_bits(graph, after, x=net.data(5, scale=3))


def test_a_chain_stays_behind_a_concatenation_whose_parts_others_read() -> None:
    net, graph = branches(read=True)
    after = run_passes(graph)
    assert ops(after) == ["chain", "conv2d", "chain", "conv2d", "chain", "concat", "chain"]
    same_bits(graph, after, x=net.data(5, scale=3))


def test_codes_behind_a_flatten_keep_their_name_when_a_chain_makes_floats_of_them() -> None:
    net = Net(0, x=(3, 2, 2))
    codes = net.codes(net.node("flatten", ("x",)), CodeType.parse("signed4"))
    graph = net.graph(net.chain(codes, "to_float", ("mul", 0.5)))
    after = run_passes(graph)
    assert codes in {node.output for node in after.nodes}
    same_bits(graph, after, x=net.data(3))


def test_a_flatten_with_two_readers_keeps_the_other_one() -> None:
    net = Net(0, x=(3, 2, 2))
    flat = net.node("flatten", ("x",))
    graph = net.graph(net.codes(flat, CodeType.parse("signed4")), flat)
    after = drop_dead(move_chains_before_flatten(graph))
    assert sorted(ops(after)) == ["chain", "flatten", "flatten"]
    same_bits(graph, after, x=net.data(3))


@pytest.mark.parametrize(
    ("given_steps", "code", "left"),
    [
        ([("mul", 1.0), ("div", 1.0), ("sub", 0.0), ("add", -0.0)], None, []),
        ([("add", 0.0)], None, ["add"]),  # -0 + 0 = +0
        ([("sub", -0.0)], None, ["sub"]),
        ([("add", 0.0), ("sub", -0.0)], "odd1", []),
        ([("max", 0.5), ("max", 1.0), ("min", 2.0), ("min", 1.5)], None, ["max", "min"]),
        (["round", "round"], None, ["round"]),
        ([("mul", 3.0), "round"], "signed4", ["mul"]),
        (["round"], "odd1", ["round"]),  # -0.4 rounds to -0, which is not negative
        (["round"], "log23", ["round"]),  # 0.6 rounds to 1, and is nearer to 0
        ([("max", -4.0), ("min", 4.0)], "log23", []),
        ([("max", -3.0), ("min", 2.8)], "log23", ["max", "min"]),
        ([("max", -8.0), ("min", 7.0)], "signed4", []),
        ([("max", -7.0), ("min", 7.0)], "signed4", ["max"]),
        ([("max", -1.0), ("min", 1.0)], "odd1", []),
        ([("max", 0.0)], "odd1", ["max"]),
        ([("min", 0.0)], "odd1", []),
        ([("min", [-1.0, 1.0])], "odd1", ["min"]),
    ],
)
def test_only_steps_that_change_no_bit_are_dropped(given_steps: list[Any], code: str | None, left: list[str]) -> None:
    net = Net(0, x=(2,))
    graph = net.graph(net.chain("x", *given_steps, code=None if code is None else CodeType.parse(code)))
    after = drop_idle_steps(graph)
    assert [step.op for node in after.nodes for step in node.attrs["steps"]] == left
    line = np.concatenate([np.linspace(-10, 10, 81), [-0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38]]).astype(np.float32)
    same_bits(graph, after, x=np.stack([line, line], axis=1))


def test_dead_nodes_go_with_their_constants_and_inputs_stay() -> None:
    net = Net(0, x=(3,), unused=(2,))
    net.chain("unused", ("mul", 2.0))
    graph = net.graph(net.chain("x", ("add", 1.0)))
    after = drop_dead(graph)
    assert len(after.nodes) == len(after.constants) == 1
    assert list(after.inputs) == ["x", "unused"]


def test_wide_codes_and_chains_of_floats_keep_their_chain() -> None:
    for code in ("signed3", "unsigned8"):
        net, graph = convnet(("mul", 0.3), pool=False, code=code)
        assert ops(run_passes(graph)) == ["chain", "conv2d", "chain"], code
    net = Net(0, x=(3,))
    graph = net.graph(net.chain("x", ("mul", 0.3), code=CodeType.parse("odd1")))
    assert fold_thresholds(graph) == graph


@settings(max_examples=150)
@given(data=st.data(), code=st.sampled_from(NARROW), bound=st.integers(1, 300), channels=st.integers(1, 5))
def test_thresholds_give_the_level_of_the_chain_at_every_reachable_sum(data: Any, code: CodeType, bound: int, channels: int) -> None:
    found = [step for step in data.draw(steps(channels)) if step != "round"]
    chain = [(op, np.asarray(operand, np.float32)) for op, operand in found]
    way = np.ones(channels, np.int64)
    for op, operand in chain:
        way = way * np.where(operand < 0, -1, 1) if op in ("mul", "div") else way
    levels = Levels(chain, code, 0)
    result = bisect(levels, way, bound)
    assert result is not None
    thresholds, direction = (array.astype(np.int64) for array in result)
    for total in range(-bound, bound + 1):
        sums = np.full(channels, total, np.int64)
        x = sums[:, None] * direction[:, None] >= thresholds * direction[:, None]
        np.testing.assert_array_equal(x.sum(axis=1), levels(sums), err_msg=f"sum {total}")


def test_levels_that_no_sum_or_every_sum_reaches_are_the_extremes_of_int32() -> None:
    code = CodeType.parse("odd1")
    always = Levels([("mul", np.zeros(2, np.float32)), ("add", np.float32([1, -1]))], code, 0)
    for direction, expected in ((1, [INT32_MIN, INT32_MAX]), (-1, [INT32_MAX, INT32_MIN])):
        result = bisect(always, np.full(2, direction), 100)
        assert result is not None
        assert result[0][:, 0].tolist() == expected


def test_a_chain_that_overflows_float32_is_not_folded() -> None:
    big = [("mul", np.float32([3e38])), ("mul", np.float32([0.0]))]
    assert bisect(Levels(big, CodeType.parse("odd1"), 0), np.ones(1, np.int64), 100) is None


def test_thresholds_at_the_longest_sums_follow_float32_rounding() -> None:
    """Above 2^24 neighbouring sums share a float; the threshold is the first integer that rounds up, ties to even."""
    bound = 2**31 - 2**7
    result = bisect(Levels([("sub", np.float32([2**30]))], CodeType.parse("odd1"), 0), np.ones(1, np.int64), bound)
    assert result is not None
    assert result[0][0, 0] == 2**30 - 2**5  # halfway between 2^30 - 64 and 2^30, and 2^30 has the even mantissa
