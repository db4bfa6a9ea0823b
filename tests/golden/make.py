"""Write the golden files of the present format version. Run once a version; existing files are never replaced.

usage: python -m tests.golden.make
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lobit.format import Graph, Node, Step, check_graph, write_file
from lobit.format.file import VERSION
from tests.format.samples import CONV, codes, floats, integers, mlp, signs
from tests.golden import oracle

FOLDER = Path(__file__).parent
SAMPLES = 9


def convnet() -> Graph:
    """Of the exact class alone: 65 channels flattened, one-bit padding, groups, dilation, even kernel, both pools, a residual add."""
    rng = np.random.default_rng(11)
    wide = {"stride": [2, 1], "padding": [2, 0, 1, 1], "dilation": [2, 1], "groups": 5}
    pool = {"kernel": [2, 2], "stride": [1, 2], "padding": [1, 0, 0, 1]}
    rescale = {"steps": [Step("to_float"), Step("mul", "a"), Step("add", "b")], "code": None, "zero": 0}
    round4 = {"steps": [Step("div", "step"), Step("round")], "code": "signed4", "zero": -2}
    folded = {"thresholds": "act1.t", "direction": "act1.d"}
    nodes = [
        Node("chain", "sign", ("x",), "c0", {"steps": [Step("sub", "mean")], "code": "odd1", "zero": 0}, {"mean": "sign.mean"}),
        Node("conv2d", "conv1", ("c0",), "s1", CONV, {"weight": "conv1.weight"}),
        Node("threshold", "act1", ("s1",), "c1", {"code": "odd1", "zero": 0}, folded),
        Node("conv2d", "conv2", ("c1",), "s2", wide, {"weight": "conv2.weight"}),
        Node("chain", "norm2", ("s2",), "f2", rescale, {"a": "norm2.a", "b": "norm2.b"}),
        Node("max_pool2d", "max", ("f2",), "m2", {**pool, "dilation": [1, 1]}),
        Node("avg_pool2d", "avg", ("f2",), "v2", {**pool, "divisor": 3}),
        Node("add", "residual", ("m2", "v2"), "r2"),
        Node("chain", "act2", ("r2",), "c2", round4, {"step": "act2.step"}),
        Node("flatten", "flat", ("c2",), "c3"),
        Node("linear", "head", ("c3",), "s3", {}, {"weight": "head.weight"}),
        Node("chain", "logits", ("s3",), "y", rescale, {"a": "logits.a", "b": "logits.b"}),
    ]
    draft = Graph({"x": (3, 6, 5)}, nodes[:-2], ("c3",), {
        "sign.mean": floats(rng.normal(size=3) / 4),
        "conv1.weight": codes(rng, (10, 3, 3, 3), "odd1"),
        "act1.t": integers(rng.integers(-6, 7, (10, 1))),
        "act1.d": integers(signs(rng, 10)),
        "conv2.weight": codes(rng, (65, 2, 2, 3), "signed3"),
        "norm2.a": floats(rng.normal(size=65)),
        "norm2.b": floats(rng.normal(size=65)),
        "act2.step": floats([1.7]),
    })  # fmt: skip
    inputs = check_graph(draft).types["c3"].shape[0]
    head = {
        "head.weight": codes(rng, (7, inputs), "ternary2"),
        "logits.a": floats(rng.normal(size=7)),
        "logits.b": floats(rng.normal(size=7)),
    }
    return check_graph(Graph(draft.inputs, nodes, ("y",), {**draft.constants, **head}, meta={"model": "golden convnet"}))


def signal() -> Graph:
    """Values of two axes, (C, L): padding of floats and of codes, activations that are powers of two, both pools, values side by side."""
    rng = np.random.default_rng(13)
    along = {"stride": [1, 2], "padding": [0, 2, 0, 0], "dilation": [1, 1], "groups": 1}
    pool = {"kernel": [1, 2], "stride": [1, 2], "padding": [0, 1, 0, 0]}
    rescale = [Step("to_float"), Step("mul", "a"), Step("add", "b")]
    nodes = [
        Node("pad2d", "frame", ("x",), "f0", {"padding": [0, 1, 0, 2], "value": 0.25}),
        Node("chain", "quantize", ("f0",), "c0", {"steps": [Step("mul", "k")], "code": "signed4", "zero": 1}, {"k": "quantize.k"}),
        Node("conv2d", "conv1", ("c0",), "s1", along, {"weight": "conv1.weight"}),
        Node("chain", "act1", ("s1",), "c1", {"steps": rescale, "code": "log24", "zero": 0}, {"a": "act1.a", "b": "act1.b"}),
        Node("pad2d", "edge", ("c1",), "c2", {"padding": [0, 0, 0, 3], "value": -4}),
        Node("max_pool2d", "max", ("c2",), "c3", {**pool, "dilation": [1, 1]}),
        Node("conv2d", "conv2", ("c3",), "s2", {**along, "stride": [1, 1]}, {"weight": "conv2.weight"}),
        Node("chain", "norm2", ("s2",), "f2", {"steps": rescale, "code": None, "zero": 0}, {"a": "norm2.a", "b": "norm2.b"}),
        Node("chain", "relu", ("f2",), "f3", {"steps": [Step("max", "low")], "code": None, "zero": 0}, {"low": "relu.low"}),
        Node("concat", "join", ("f3", "f2", "f3"), "f4"),
        Node("avg_pool2d", "avg", ("f4",), "f5", {**pool, "divisor": 2}),
        Node("chain", "act2", ("f5",), "c4", {"steps": [Step("round")], "code": "log22", "zero": 0}),
        Node("flatten", "flat", ("c4",), "c5"),
        Node("linear", "head", ("c5",), "s3", {}, {"weight": "head.weight"}),
        Node("chain", "logits", ("s3",), "y", {"steps": rescale, "code": None, "zero": 0}, {"a": "logits.a", "b": "logits.b"}),
    ]
    draft = Graph({"x": (3, 19)}, nodes[:-2], ("c5",), {
        "quantize.k": floats([2.5, 4, 3]),
        "conv1.weight": codes(rng, (33, 3, 1, 4), "signed3"),
        "act1.a": floats(rng.normal(size=33) / 2),
        "act1.b": floats(rng.normal(size=33)),
        "conv2.weight": codes(rng, (5, 33, 1, 3), "log23"),
        "norm2.a": floats(rng.normal(size=5) / 60),
        "norm2.b": floats(rng.normal(size=5)),
        "relu.low": floats([0]),
    })  # fmt: skip
    inputs = check_graph(draft).types["c5"].shape[0]
    head = {
        "head.weight": codes(rng, (6, inputs), "odd2"),
        "logits.a": floats(rng.normal(size=6)),
        "logits.b": floats(rng.normal(size=6)),
    }
    return check_graph(Graph(draft.inputs, nodes, ("y",), {**draft.constants, **head}, meta={"model": "golden signal"}))


def resize() -> Graph:
    """An image that grows by mixes of its neighbours, and its codes that grow by nearest pixels."""
    rng = np.random.default_rng(14)
    rescale = [Step("to_float"), Step("mul", "a"), Step("add", "b")]
    mixed = {role: f"mixed.{role}" for role in ("rows", "columns", "row_weights", "column_weights")}
    near = {role: f"near.{role}" for role in ("rows", "columns")}
    nodes = [
        Node("chain", "quantize", ("x",), "c0", {"steps": [Step("mul", "k")], "code": "signed4", "zero": 1}, {"k": "quantize.k"}),
        Node("conv2d", "conv1", ("c0",), "s1", CONV, {"weight": "conv1.weight"}),
        Node("chain", "norm1", ("s1",), "f1", {"steps": rescale, "code": None, "zero": 0}, {"a": "norm1.a", "b": "norm1.b"}),
        Node("resize2d", "mixed", ("f1",), "f2", {}, mixed),
        Node("chain", "act2", ("f2",), "c2", {"steps": [Step("max", "low")], "code": "unsigned2", "zero": 0}, {"low": "act2.low"}),
        Node("resize2d", "near", ("c2",), "c3", {}, near),
        Node("conv2d", "conv2", ("c3",), "s2", CONV, {"weight": "conv2.weight"}),
        Node("chain", "out", ("s2",), "y", {"steps": rescale, "code": None, "zero": 0}, {"a": "out.a", "b": "out.b"}),
    ]
    constants = {
        "quantize.k": floats([2.5]),
        "conv1.weight": codes(rng, (37, 3, 3, 3), "signed2"),
        "norm1.a": floats(rng.normal(size=37) / 9),
        "norm1.b": floats(rng.normal(size=37)),
        "mixed.rows": integers([0, 0, 0, 1, 1, 2, 2, 3]),
        "mixed.row_weights": floats([0, 0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25]),
        "mixed.columns": integers([0, 0, 1, 2, 2, 3, 4]),
        "mixed.column_weights": floats([0, 0.7, 0.3, 0, 0.6, 0.3, 1]),
        "act2.low": floats([0]),
        "near.rows": integers([0, 1, 1, 2, 3, 4, 4, 5, 6, 7]),
        "near.columns": integers([6, 5, 3, 3, 1, 0, 0, 2, 4]),
        "conv2.weight": codes(rng, (2, 37, 3, 3), "odd1"),
        "out.a": floats(rng.normal(size=2) / 9),
        "out.b": floats(rng.normal(size=2)),
    }
    return check_graph(Graph({"x": (3, 4, 5)}, nodes, ("y",), constants, meta={"model": "golden resize"}))


GOLDEN: dict[str, Callable[[], Graph]] = {"mlp": mlp, "convnet": convnet, "signal": signal, "resize": resize}


def main() -> None:
    """Run from the command line."""
    for name, make in GOLDEN.items():
        path = FOLDER / f"v{VERSION}-{name}.lobit"
        if path.exists():
            print(f"{path.name} stays as it is")
            continue
        graph = make()
        x = np.random.default_rng(12).normal(size=(SAMPLES, *next(iter(graph.inputs.values())))).astype(np.float32)
        if name == "mlp":
            x = (x - x.min()) / (x.max() - x.min()) * 8
        write_file(path, graph)
        np.savez(path.with_suffix(".npz"), x=x.astype(np.float32), y=oracle.run(graph, x))
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
