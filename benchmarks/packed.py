"""The packed nets that the benchmarks run, made without training: what a net costs does not depend on what it has learned."""

from __future__ import annotations

import numpy as np

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node, Step, check_graph

ONE_BIT = CodeType("odd", 1)
PIXELS = 28 * 28


def mnist_mlp_w1a1(width: int = 4096, seed: int = 0) -> Graph:
    """The paper's MNIST net as export writes it: 8-bit pixels, then one-bit weights and activations, batch norm folded to thresholds.

    Weights are random signs. Thresholds and directions are those of random batch-norm statistics: means within one deviation of the sums, both signs of
    the scale, so that activations are as balanced as in a trained net. The outputs keep their batch norm, as the paper has it.
    """
    rng = np.random.default_rng(seed)
    quantize = {"steps": [Step("mul", "levels"), Step("round")], "code": "unsigned8", "zero": 0}
    nodes = [
        Node("flatten", "flatten", ("x",), "pixels"),
        Node("chain", "input", ("pixels",), "a0", quantize, {"levels": "input.levels"}),
    ]
    constants = {"input.levels": Constant.from_array(np.array([255.0], np.float32))}
    for index, inputs in enumerate((PIXELS, width, width), start=1):
        deviation = np.sqrt(inputs * (128.0**2 if index == 1 else 1.0))
        thresholds = np.round(rng.normal(scale=deviation, size=(width, 1))).astype(np.int32)
        constants |= {
            f"fc{index}.weight": _signs(rng, width, inputs),
            f"fc{index}.thresholds": Constant.from_array(thresholds),
            f"fc{index}.direction": Constant.from_array(rng.choice(np.array([-1, 1], np.int32), width)),
        }
        folded = {"thresholds": f"fc{index}.thresholds", "direction": f"fc{index}.direction"}
        nodes += [
            Node("linear", f"fc{index}", (f"a{index - 1}",), f"s{index}", {}, {"weight": f"fc{index}.weight"}),
            Node("threshold", f"bn{index}", (f"s{index}",), f"a{index}", {"code": str(ONE_BIT), "zero": 0}, folded),
        ]
    norm = [Step("to_float"), Step("mul", "a"), Step("add", "b")]
    constants |= {
        "fc4.weight": _signs(rng, 10, width),
        "bn4.a": Constant.from_array(rng.uniform(0.5, 1.5, 10).astype(np.float32) / np.float32(np.sqrt(width))),
        "bn4.b": Constant.from_array(rng.normal(size=10).astype(np.float32)),
    }
    nodes += [
        Node("linear", "fc4", ("a3",), "s4", {}, {"weight": "fc4.weight"}),
        Node("chain", "bn4", ("s4",), "y", {"steps": norm, "code": None, "zero": 0}, {"a": "bn4.a", "b": "bn4.b"}),
    ]
    return check_graph(Graph({"x": (1, 28, 28)}, nodes, ("y",), constants, meta={"model": "mnist-mlp-w1a1, untrained"}))


def _signs(rng: np.random.Generator, rows: int, inputs: int) -> Constant:
    return Constant.from_codes(rng.choice(np.array([-1, 1], np.int8), (rows, inputs)), ONE_BIT)
