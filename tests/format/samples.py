"""Small graphs that between them use every operator, every alphabet and both kinds of code padding. Free of torch and pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node, Step, check_graph

CONV = {"stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
QUANTIZE = [Step("mul", "step"), Step("round")]


def codes(rng: np.random.Generator, shape: tuple[int, ...], code: str) -> Constant:
    """Random codes of a type."""
    kind = CodeType.parse(code)
    return Constant.from_codes(rng.choice(kind.levels, shape), kind)


def floats(values: Any) -> Constant:
    """A float32 constant."""
    return Constant.from_array(np.asarray(values, np.float32))


def integers(values: Any) -> Constant:
    """An int32 constant."""
    return Constant.from_array(np.asarray(values, np.int32))


def signs(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """Random directions."""
    return rng.choice([-1, 1], count)


def mlp() -> Graph:
    """8-bit input, ternary and one-bit layers, two-bit thresholds, 70 channels: two words and a tail."""
    rng = np.random.default_rng(1)
    nodes = [
        Node("chain", "quantize", ("x",), "x8", {"steps": QUANTIZE, "code": "unsigned8", "zero": 3}, {"step": "quantize.step"}),
        Node("linear", "fc1", ("x8",), "s1", {}, {"weight": "fc1.weight"}),
        Node("threshold", "act1", ("s1",), "a1", {"code": "odd1", "zero": 0}, {"thresholds": "act1.t", "direction": "act1.d"}),
        Node("linear", "fc2", ("a1",), "s2", {}, {"weight": "fc2.weight"}),
        Node("threshold", "act2", ("s2",), "a2", {"code": "unsigned2", "zero": 0}, {"thresholds": "act2.t", "direction": "act2.d"}),
        Node("linear", "fc3", ("a2",), "s3", {}, {"weight": "fc3.weight"}),
        Node(
            "chain",
            "logits",
            ("s3",),
            "y",
            {"steps": [Step("to_float"), Step("mul", "a"), Step("add", "b"), Step("max", "low"), Step("min", "high")], "code": None},
            {"a": "logits.a", "b": "logits.b", "low": "logits.low", "high": "logits.high"},
        ),
    ]
    constants = {
        "quantize.step": floats([31.875]),
        "fc1.weight": codes(rng, (70, 13), "ternary2"),
        "act1.t": integers(rng.integers(-200, 200, (70, 1))),
        "act1.d": integers(signs(rng, 70)),
        "fc2.weight": codes(rng, (9, 70), "odd1"),
        "act2.t": integers(np.sort(rng.integers(-20, 20, (9, 3)), axis=1)),
        "act2.d": integers(signs(rng, 9)),
        "fc3.weight": codes(rng, (4, 9), "signed3"),
        "logits.a": floats(rng.normal(size=4)),
        "logits.b": floats(rng.normal(size=4)),
        "logits.low": floats([-50]),
        "logits.high": floats([50]),
    }
    return check_graph(Graph({"x": (13,)}, nodes, ("y",), constants, meta={"model": "sample"}))


def convnet() -> Graph:
    """Padded one-bit convolution, groups, dilation, both pools, a residual add, and the two float layers."""
    rng = np.random.default_rng(2)
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]}
    chain = {"steps": [Step("to_float"), Step("div", "by"), Step("sub", "mean")], "code": None, "zero": 0}
    nodes = [
        Node("conv2d_f32", "stem", ("x",), "f0", CONV, {"weight": "stem.weight", "bias": "stem.bias"}),
        Node("chain", "sign", ("f0",), "c0", {"steps": [], "code": "odd1", "zero": 0}),
        Node("conv2d", "conv1", ("c0",), "s1", CONV, {"weight": "conv1.weight"}),
        Node("threshold", "act1", ("s1",), "c1", {"code": "odd1", "zero": 0}, {"thresholds": "act1.t", "direction": "act1.d"}),
        Node("max_pool2d", "pool1", ("c1",), "p1", {**pool, "dilation": [1, 1]}),
        Node(
            "conv2d", "conv2", ("p1",), "s2", {**CONV, "groups": 2, "dilation": [2, 1], "padding": [2, 1, 2, 1]}, {"weight": "conv2.weight"}
        ),
        Node("chain", "norm2", ("s2",), "f2", chain, {"by": "norm2.by", "mean": "norm2.mean"}),
        Node("add", "residual", ("f2", "f2"), "r2"),
        Node("avg_pool2d", "pool2", ("r2",), "p2", {**pool, "divisor": 4}),
        Node("flatten", "flat", ("p2",), "v"),
        Node("linear_f32", "head", ("v",), "y", {}, {"weight": "head.weight"}),
    ]
    constants = {
        "stem.weight": floats(rng.normal(size=(6, 2, 3, 3))),
        "stem.bias": floats(rng.normal(size=6)),
        "conv1.weight": codes(rng, (4, 6, 3, 3), "odd1"),
        "act1.t": integers(rng.integers(-20, 20, (4, 1))),
        "act1.d": integers(signs(rng, 4)),
        "conv2.weight": codes(rng, (8, 2, 3, 3), "log23"),
        "norm2.by": floats([3]),
        "norm2.mean": floats(rng.normal(size=8)),
        "head.weight": floats(rng.normal(size=(3, 8))),
    }
    return check_graph(Graph({"x": (2, 5, 4)}, nodes, ("y",), constants))


def moves() -> Graph:
    """Padding of floats and of codes, and codes side by side."""
    rng = np.random.default_rng(3)
    nodes = [
        Node("pad2d", "frame", ("x",), "x1", {"padding": [0, 1, 2, 0], "value": 0.25}),
        Node("chain", "sign", ("x1",), "c1", {"steps": [], "code": "odd1", "zero": 0}),
        Node("pad2d", "ones", ("c1",), "c2", {"padding": [1, 1, 1, 1], "value": 1}),
        Node("conv2d", "conv", ("c2",), "s1", {**CONV, "padding": [0, 0, 0, 0]}, {"weight": "conv.weight"}),
        Node("flatten", "flat", ("s1",), "s2"),
        Node("concat", "join", ("c1", "c1", "c1"), "c3"),
    ]
    return check_graph(Graph({"x": (2, 3, 4)}, nodes, ("s2", "c3"), {"conv.weight": codes(rng, (3, 2, 3, 3), "odd1")}))


def resized() -> Graph:
    """Codes of the nearest pixels, and floats mixed of neighbours."""
    rng = np.random.default_rng(5)
    near, mixed = {"rows": "near.rows", "columns": "near.columns"}, {"rows": "mixed.rows", "columns": "mixed.columns"}
    nodes = [
        Node("resize2d", "mixed", ("x",), "x1", {}, {**mixed, "row_weights": "mixed.down", "column_weights": "mixed.right"}),
        Node("chain", "quantize", ("x1",), "c1", {"steps": [Step("mul", "k")], "code": "signed4", "zero": 1}, {"k": "quantize.k"}),
        Node("resize2d", "near", ("c1",), "c2", {}, near),
        Node("conv2d", "conv", ("c2",), "s1", CONV, {"weight": "conv.weight"}),
    ]
    constants = {
        "mixed.rows": integers([0, 0, 1, 1, 2]),
        "mixed.columns": integers([0, 1, 2, 3]),
        "mixed.down": floats([0, 0.5, 0, 0.25, 1]),
        "mixed.right": floats([0.1, 0.2, 0.3, 0.4]),
        "quantize.k": floats([3.7]),
        "near.rows": integers([4, 0, 0, 2]),
        "near.columns": integers([3, 3, 1, 0, 2, 2, 1]),
        "conv.weight": codes(rng, (3, 2, 3, 3), "signed2"),
    }
    return check_graph(Graph({"x": (2, 3, 4)}, nodes, ("x1", "s1"), constants))


def rows() -> Graph:
    """Values of two axes: a convolution, both pools and padding along a row; activations that are powers of two."""
    rng = np.random.default_rng(4)
    along = {"kernel": [1, 3], "stride": [1, 2], "padding": [0, 1, 0, 1]}
    nodes = [
        Node("avg_pool2d", "mean", ("x",), "x1", {**along, "divisor": 3}),
        Node("pad2d", "frame", ("x1",), "x2", {"padding": [0, 2, 0, 0], "value": -0.5}),
        Node("chain", "quantize", ("x2",), "c1", {"steps": [Step("mul", "k")], "code": "signed4", "zero": 1}, {"k": "quantize.k"}),
        Node("max_pool2d", "max", ("c1",), "c2", {**along, "dilation": [1, 1]}),
        Node("resize2d", "longer", ("c2",), "c4", {}, {"rows": "longer.rows", "columns": "longer.columns"}),
        Node("conv2d", "conv", ("c4",), "s1", {**CONV, "padding": [0, 1, 0, 0], "groups": 3}, {"weight": "conv.weight"}),
        Node("chain", "powers", ("s1",), "c3", {"steps": [Step("to_float"), Step("mul", "k")], "code": "log24"}, {"k": "powers.k"}),
        Node("conv2d", "conv2", ("c3",), "s2", {**CONV, "padding": [0, 1, 0, 0]}, {"weight": "conv2.weight"}),
    ]
    constants = {
        "longer.rows": integers([0]),
        "longer.columns": integers([0, 0, 1, 0, 1]),
        "powers.k": floats([0.7]),
        "conv2.weight": codes(rng, (2, 6, 1, 3), "log23"),
        "quantize.k": floats([3, 1, 2]),
        "conv.weight": codes(rng, (6, 1, 1, 2), "signed3"),
    }
    return check_graph(Graph({"x": (3, 11)}, nodes, ("s2",), constants))


SAMPLES: dict[str, Callable[[], Graph]] = {"mlp": mlp, "convnet": convnet, "moves": moves, "rows": rows, "resized": resized}
