from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.errors import FormatError
from lobit.format import OPERATORS, Constant, Graph, Node, Step, ValueType, accumulator_bound, check_graph
from lobit.format.geometry import Window
from tests.format.samples import CONV, SAMPLES, codes, convnet, floats, integers, mlp

RNG = np.random.default_rng(0)
POOL = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}


def infer(shape: tuple[int, ...], *nodes: Node, **constants: Constant) -> ValueType:
    """Type of the last node's output, in a graph with one input `x`."""
    return check_graph(Graph({"x": shape}, nodes, (nodes[-1].output,), constants)).types[nodes[-1].output]


def to_codes(code: str = "odd1", output: str = "c", zero: int = 0) -> Node:
    return Node("chain", f"make {output}", ("x",), output, {"steps": [], "code": code, "zero": zero})


def test_the_samples_use_every_operator() -> None:
    used = {node.op for sample in SAMPLES.values() for node in sample().nodes}
    assert used == set(OPERATORS)


def test_types_of_the_samples() -> None:
    types = {name: str(value) for name, value in mlp().types.items()}
    assert types == {
        "x": "f32 (13)", "x8": "unsigned8 zero 3 (13)", "s1": "i32 (70)", "a1": "odd1 (70)",
        "s2": "i32 (9)", "a2": "unsigned2 (9)", "s3": "i32 (4)", "y": "f32 (4)",
    }  # fmt: skip
    types = {name: str(value) for name, value in convnet().types.items()}
    assert types["p1"] == "odd1 (4, 2, 2)"
    assert types["s2"] == "i32 (8, 2, 2)"
    assert types["v"] == "f32 (8)"


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_output_size_counts_the_windows_that_fit(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    window = Window(kernel, stride, padding, dilation)
    fits, meets = [], True
    for axis in (0, 1):
        starts = range(-padding[axis], size[axis] + padding[axis + 2], stride[axis])
        taps = [[start + tap * dilation[axis] for tap in range(kernel[axis])] for start in starts]
        whole = [window_taps for window_taps in taps if window_taps[-1] < size[axis] + padding[axis + 2]]
        fits.append(len(whole))
        meets &= all(any(0 <= tap < size[axis] for tap in window_taps) for window_taps in whole)
    if 0 in fits:
        with pytest.raises(ValueError, match="does not fit"):
            window.output_size(size)
    else:
        assert window.output_size(size) == tuple(fits)
        assert window.always_meets(size) is meets


def test_conv2d_shape_with_groups_and_uneven_windows() -> None:
    attrs = {"stride": [2, 1], "padding": [1, 0, 2, 3], "dilation": [1, 2], "groups": 3}
    node = Node("conv2d", "conv", ("c",), "s", attrs, {"weight": "w"})
    assert infer((6, 8, 9), to_codes(), node, w=codes(RNG, (9, 2, 3, 4), "odd1")) == ValueType("i32", (9, 5, 6))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"groups": 4}, "groups"), ({"groups": 0}, "groups"), ({"groups": True}, "groups"), ({"stride": [0, 1]}, "stride"),
        ({"stride": [1]}, "stride"), ({"padding": [1, 1]}, "padding"), ({"padding": [-1, 0, 0, 0]}, "padding"), ({"dilation": [9, 9]}, "does not fit"),
        ({"dilation": [1.0, 1]}, "dilation"), ({"padding": [65535] * 4}, "beyond"), ({"mode": "same"}, "unknown attributes"),
    ],
)  # fmt: skip
def test_a_wrong_convolution_is_refused(change: dict[str, Any], why: str) -> None:
    node = Node("conv2d", "features.3", ("c",), "s", {**CONV, **change}, {"weight": "w"})
    with pytest.raises(FormatError, match=rf"features\.3.*{why}"):
        infer((6, 8, 8), to_codes(), node, w=codes(RNG, (4, 6, 3, 3), "odd1"))


@pytest.mark.parametrize("shape", [(4, 5), (4, 7), (4, 6, 1, 1)])
def test_a_linear_weight_must_fit_its_input(shape: tuple[int, ...]) -> None:
    node = Node("linear", "fc", ("c",), "s", {}, {"weight": "w"})
    with pytest.raises(FormatError, match=r"fc.*weight has shape"):
        infer((6,), to_codes(), node, w=codes(RNG, shape, "odd1"))


def test_linear_needs_codes_and_linear_f32_floats() -> None:
    with pytest.raises(FormatError, match="must be codes"):
        infer((6,), Node("linear", "fc", ("x",), "s", {}, {"weight": "w"}), w=codes(RNG, (4, 6), "odd1"))
    with pytest.raises(FormatError, match="must be f32"):
        infer((6,), to_codes(), Node("linear_f32", "fc", ("c",), "s", {}, {"weight": "w"}), w=floats(np.ones((4, 6))))
    with pytest.raises(FormatError, match="must be codes, not f32"):
        infer((6,), to_codes(), Node("linear", "fc", ("c",), "s", {}, {"weight": "w"}), w=floats(np.ones((4, 6))))


def test_sums_beyond_32_bits_are_refused_at_the_first_input_too_many() -> None:
    x = ValueType("codes", (1,), CodeType("signed", 8), 127)  # codes - zero reach -255
    weight = CodeType("signed", 8)
    most = (2**31 - 1) // (255 * 128)
    assert accumulator_bound(most, x, weight) <= 2**31 - 1 < accumulator_bound(most + 1, x, weight)
    node = Node("linear", "fc", ("c",), "s", {}, {"weight": "w"})
    for inputs in (most, most + 1):
        constant = Constant((1, inputs), np.zeros((8, 1, -(-inputs // 64)), np.uint64), weight)
        if inputs == most:
            assert infer((inputs,), to_codes("signed8", zero=127), node, w=constant).kind == "i32"
        else:
            with pytest.raises(FormatError, match="beyond 32 bits"):
                infer((inputs,), to_codes("signed8", zero=127), node, w=constant)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([Step("to_float")], "to_float"), ([Step("mul")], "none of"), ([Step("exp")], "none of"), ([Step("round", "k")], "none of"),
        ([Step("mul", "missing")], "needs a constant"), ([["mul", "k"]], "steps must be"), ("mul", "steps must be"), ([], "not used"),
        ([Step("div", "k")], "divides by zero"), ([Step("add", "k"), Step("mul", "wide")], r"has shape \(4,\)"),
    ],
)  # fmt: skip
def test_a_wrong_chain_is_refused(steps: Any, why: str) -> None:
    constants = {"k": "k", "wide": "wide"} if "wide" in str(steps) else {"k": "k"}
    node = Node("chain", "act", ("x",), "y", {"steps": steps, "code": None}, constants)
    given = {"k": floats([0.0]), "wide": floats(np.ones(4))}
    with pytest.raises(FormatError, match=f"'act'.*{why}"):
        infer((3,), node, **{name: given[name] for name in constants})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_constant_that_is_not_finite_is_refused(value: float) -> None:
    node = Node("chain", "act", ("x",), "y", {"steps": [Step("add", "k")], "code": None}, {"k": "k"})
    with pytest.raises(FormatError, match="not finite"):
        infer((3,), node, k=floats([1, value, 1]))


@pytest.mark.parametrize(
    ("code", "zero", "why"),
    [
        ("odd8", 0, "no rounding"), ("odd2", 0, "no rounding"), ("odd1", 1, "zero"), ("unsigned2", 4, "zero"), ("unsigned2", -1, "zero"),
        ("signed4", 8, "zero"), (None, 1, "codes only"), ("float", 0, "no code type"), ("unsigned2", 1.0, "integer"), (3, 0, "no code type"),
    ],
)  # fmt: skip
def test_a_chain_makes_only_codes_with_a_rounding_rule(code: Any, zero: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        infer((3,), Node("chain", "act", ("x",), "y", {"steps": [], "code": code, "zero": zero}))


def test_codes_and_sums_enter_a_chain_through_to_float() -> None:
    attrs = {"steps": [Step("to_float")], "code": None}
    assert infer((3,), to_codes(), Node("chain", "act", ("c",), "y", attrs)) == ValueType("f32", (3,))
    with pytest.raises(FormatError, match="to_float"):
        infer((3,), to_codes(), Node("chain", "act", ("c",), "y", {"steps": [], "code": None}))
    with pytest.raises(FormatError, match="to_float stands first"):
        infer((3,), to_codes(), Node("chain", "act", ("c",), "y", {"steps": [Step("round"), Step("to_float")], "code": None}))


@pytest.mark.parametrize(
    ("code", "shape", "direction", "why"),
    [
        ("unsigned2", (4, 1), [1] * 4, "shape"), ("odd1", (3, 1), [1] * 4, "shape"), ("odd1", (4, 1), [1] * 3, "direction"),
        ("odd1", (4, 1), [1, 1, 1, 0], "direction"), ("unsigned3", (4, 7), [1] * 4, "1 or 2 bits"), (None, (4, 1), [1] * 4, "1 or 2 bits"),
        ("log22", (4, 2), [1] * 4, "1 or 2 bits"),
    ],
)  # fmt: skip
def test_a_wrong_threshold_is_refused(code: Any, shape: tuple[int, int], direction: list[int], why: str) -> None:
    with pytest.raises(FormatError, match=f"'act'.*{why}"):
        infer(
            (6,),
            to_codes(),
            Node("linear", "fc", ("c",), "s", {}, {"weight": "w"}),
            Node("threshold", "act", ("s",), "y", {"code": code, "zero": 0}, {"thresholds": "t", "direction": "d"}),
            w=codes(RNG, (4, 6), "odd1"),
            t=integers(np.zeros(shape)),
            d=integers(direction),
        )


def test_thresholds_may_make_ternary_codes_with_two_steps() -> None:
    value = infer(
        (6,),
        to_codes(),
        Node("linear", "fc", ("c",), "s", {}, {"weight": "w"}),
        Node("threshold", "act", ("s",), "y", {"code": "ternary2"}, {"thresholds": "t", "direction": "d"}),
        w=codes(RNG, (4, 6), "odd1"),
        t=integers(np.zeros((4, 2))),
        d=integers([1, -1, 1, 1]),
    )
    assert value == ValueType("codes", (4,), CodeType("ternary", 2))


def test_pools_keep_the_type_and_refuse_windows_of_padding_alone() -> None:
    assert infer((3, 4, 4), to_codes(), Node("max_pool2d", "pool", ("c",), "p", POOL)).kind == "codes"
    with pytest.raises(FormatError, match="wholly in the padding"):
        infer((3, 4, 4), Node("max_pool2d", "pool", ("x",), "p", {**POOL, "padding": [2, 0, 0, 0]}))
    with pytest.raises(FormatError, match="divisor"):
        infer((3, 4, 4), Node("avg_pool2d", "pool", ("x",), "p", {k: v for k, v in POOL.items() if k != "dilation"} | {"divisor": 0}))


def test_add_needs_two_floats_of_one_shape() -> None:
    with pytest.raises(FormatError, match="two f32 values"):
        infer((3,), to_codes(), Node("add", "add", ("x", "c"), "y"))
    with pytest.raises(FormatError, match="takes 2 inputs"):
        infer((3,), Node("add", "add", ("x",), "y"))


def pad(value: Any, x: str = "x", padding: Any = (1, 0, 2, 3)) -> Node:
    return Node("pad2d", "pad", (x,), "y", {"padding": list(padding), "value": value})


def resize(x: str = "x", **roles: str) -> Node:
    return Node("resize2d", "resize", (x,), "y", {}, {"rows": "rows", "columns": "columns", **roles})


def test_resizing_keeps_the_type_and_takes_its_size_from_the_tables() -> None:
    tables = {"rows": integers([0, 3, 3, 1, 2]), "columns": integers([4, 0])}
    assert infer((3, 4, 5), resize(), **tables) == ValueType("f32", (3, 5, 2))
    assert infer((3, 4, 5), to_codes("signed4", zero=2), resize("c"), **tables) == ValueType(
        "codes", (3, 5, 2), CodeType.parse("signed4"), 2
    )
    assert infer((3, 5), resize(), rows=integers([0]), columns=tables["columns"]) == ValueType("f32", (3, 2))
    mix = resize(row_weights="down", column_weights="right")
    assert infer((3, 4, 5), mix, **tables, down=floats([0, 1, 0.5, 1, 0]), right=floats([0, 0.25])) == ValueType("f32", (3, 5, 2))


@pytest.mark.parametrize(
    ("shape", "change", "roles", "why"),
    [
        ((2, 3, 4), {"rows": integers([0, 3])}, {}, "rows must be .* from 0 to 2"),
        ((2, 3, 4), {"columns": integers([-1])}, {}, "columns must be .* from 0 to 3"),
        ((2, 3, 4), {"rows": integers([[0]])}, {}, r"rows must be .* \(1, 1\)"),
        ((2, 3, 4), {"rows": floats([0])}, {}, "must be i32"),
        ((2, 4), {"rows": integers([0, 0])}, {}, "one row"),
        ((8,), {}, {}, "shape"),
        ((2, 3, 4), {"down": floats([0, 0])}, {"row_weights": "down"}, "go together"),
        ((2, 3, 4), {"right": floats([0, 0, 0])}, {"column_weights": "right"}, "go together"),
        (
            (2, 3, 4),
            {"down": floats([0]), "right": floats([0, 0, 0])},
            {"row_weights": "down", "column_weights": "right"},
            "row_weights must be 2",
        ),
        (
            (2, 3, 4),
            {"down": floats([0, 1.5]), "right": floats([0, 0, 0])},
            {"row_weights": "down", "column_weights": "right"},
            "from 0 to 1",
        ),
        ((2**14, 3, 4), {"rows": integers([0] * 200), "columns": integers([0] * 200)}, {}, "2\\^28"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shape: Any, change: Any, roles: Any, why: str) -> None:
    tables = {"rows": integers([0, 2]), "columns": integers([3, 0, 1]), **change}
    with pytest.raises(FormatError, match=why):
        infer(shape, resize(**roles), **tables)


def test_a_mix_of_codes_is_refused() -> None:
    tables = {"rows": integers([0]), "columns": integers([0]), "down": floats([0]), "right": floats([0])}
    with pytest.raises(FormatError, match="must be f32"):
        infer((2, 3, 4), to_codes(), resize("c", row_weights="down", column_weights="right"), **tables)


def test_padding_keeps_the_type_and_grows_the_image() -> None:
    assert infer((3, 4, 5), pad(0.5)) == ValueType("f32", (3, 7, 8))
    assert infer((3, 4, 5), to_codes("signed4", zero=2), pad(-8, "c")) == ValueType("codes", (3, 7, 8), CodeType.parse("signed4"), 2)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (pad(float("inf")), "finite"), (pad(1e39), "finite"), (pad(None), "finite"), (pad(True), "finite"), (pad(10**400), "finite"),
        (pad("0"), "finite"), (pad(0, "c"), "code of odd1"), (pad(1.0, "c"), "code of odd1"), (pad(True, "c"), "code of odd1"),
        (pad(1, padding=(0, -1, 0, 0)), "padding"), (pad(1, padding=(0, 1)), "padding"), (pad(1, padding=(2**14, 0, 2**14, 2**15)), "2.28 values"),
        (pad(1, "s"), "f32 or codes"),
    ],
)  # fmt: skip
def test_padding_that_no_value_can_have_is_refused(node: Node, why: str) -> None:
    conv = Node("conv2d", "conv", ("c",), "s", CONV, {"weight": "w"})
    with pytest.raises(FormatError, match=why):
        infer((3, 4, 5), to_codes(), conv, node, w=codes(RNG, (1, 3, 3, 3), "odd1"))


def test_a_row_stays_a_row() -> None:
    row = {**POOL, "kernel": [1, 2]}
    assert infer((3, 9), Node("max_pool2d", "pool", ("x",), "p", row)) == ValueType("f32", (3, 4))
    mean = {"kernel": [1, 2], "stride": [5, 1], "padding": [0, 1, 0, 0], "divisor": 2}
    assert infer((3, 9), Node("avg_pool2d", "pool", ("x",), "p", mean)) == ValueType("f32", (3, 9))
    assert infer((3, 9), pad(0.5, padding=(0, 1, 0, 2))) == ValueType("f32", (3, 12))
    assert infer((3, 9), Node("flatten", "flat", ("x",), "y")).shape == (27,)
    conv = Node("conv2d", "conv", ("c",), "s", {**CONV, "padding": [0, 0, 0, 1]}, {"weight": "w"})
    assert infer((3, 9), to_codes(), conv, w=codes(RNG, (2, 3, 1, 4), "odd1")) == ValueType("i32", (2, 7))
    for node in (pad(0.5), Node("max_pool2d", "pool", ("x",), "p", {**POOL, "padding": [1, 0, 1, 0], "stride": [1, 1]})):
        with pytest.raises(FormatError, match="it must make one"):
            infer((3, 9), node)


def concat(*inputs: str) -> Node:
    return Node("concat", "join", inputs, "y")


@pytest.mark.parametrize("code", ["log22", "log23", "log24"])
def test_a_chain_rounds_to_powers_of_two_and_thresholds_do_not(code: str) -> None:
    assert infer((3,), to_codes(code)) == ValueType("codes", (3,), CodeType.parse(code))
    with pytest.raises(FormatError, match="zero of log2"):
        infer((3,), to_codes(code, zero=1))
    with pytest.raises(FormatError, match="rounding to odd2"):
        infer((3,), to_codes("odd2"))


def test_joined_values_have_all_channels() -> None:
    assert infer((3, 4, 5), concat("x", "x")) == ValueType("f32", (6, 4, 5))
    two = to_codes("signed4", "a", 2), to_codes("signed4", "b", 2)
    assert infer((3,), *two, concat("a", "b", "a")) == ValueType("codes", (9,), CodeType.parse("signed4"), 2)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([concat("x")], "takes 2 to 64 inputs, not 1"),
        ([concat(*["x"] * 65)], "takes 2 to 64 inputs, not 65"),
        ([to_codes(), concat("x", "c")], "one type"),
        ([to_codes("signed4", "a"), to_codes("signed4", "b", 1), concat("a", "b")], "one type"),
        ([Node("max_pool2d", "pool", ("x",), "p", POOL), concat("x", "p")], "alike but for their channels"),
        ([to_codes(), Node("conv2d", "conv", ("c",), "s", CONV, {"weight": "w"}), concat("s", "s")], "f32 or codes"),
    ],
)  # fmt: skip
def test_values_that_do_not_join_are_refused(nodes: list[Node], why: str) -> None:
    constants = {"w": codes(RNG, (1, 3, 3, 3), "odd1")} if any(node.constants for node in nodes) else {}
    with pytest.raises(FormatError, match=why):
        infer((3, 4, 5), *nodes, **constants)


def test_flatten_needs_an_image() -> None:
    assert infer((3, 4, 5), Node("flatten", "flat", ("x",), "y")).shape == (60,)
    with pytest.raises(FormatError, match="flat"):
        infer((60,), Node("flatten", "flat", ("x",), "y"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"outputs": ()}, "there are none"),
        ({"outputs": ("nowhere",)}, "nowhere"),
        ({"inputs": {}}, "needs an input"),
        ({"inputs": {"x": (13,), "y": (13,)}}, "stands twice"),
        ({"inputs": {"x": (1, 13, 2, 1)}}, r"\(1, 13, 2, 1\)"),
        ({"inputs": {"x": (13, 2)}}, r"must have shape \(K,\)"),
        ({"inputs": {"x": (2**29,)}}, "at most"),
        ({"inputs": {"x": (1, 2**17, 1)}}, "limit of height"),
        ({"inputs": {"": (13,)}}, "names are printable"),
        ({"inputs": {"a\nb": (13,)}}, "names are printable"),
    ],
)
def test_a_wrong_graph_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        check_graph(replace(mlp(), **change))


def test_nodes_use_only_what_stands_before_them() -> None:
    sample = mlp()
    with pytest.raises(FormatError, match="nothing before it makes"):
        check_graph(replace(sample, nodes=list(reversed(sample.nodes))))
    with pytest.raises(FormatError, match="stands twice"):
        check_graph(replace(sample, nodes=[*sample.nodes, sample.nodes[0]]))
    with pytest.raises(FormatError, match="unknown operator 'softmax'"):
        check_graph(replace(sample, nodes=[Node("softmax", "s", ("x",), "p"), *sample.nodes]))
    with pytest.raises(FormatError, match="not used"):
        check_graph(replace(sample, constants={**sample.constants, "spare": floats([1])}))
    with pytest.raises(FormatError, match="confuses values and constants"):
        check_graph(replace(sample, nodes=[*sample.nodes, Node("add", "bad", ("y", "logits.a"), "z")]))
