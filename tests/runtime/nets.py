"""Builds graphs for tests, one node a call, with random constants from a seeded generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.format import Constant, Graph, Node, Step, ValueType, check_graph

INPUT_CODES = [
    *(CodeType("unsigned", bits) for bits in range(1, 9)),
    *(CodeType("signed", bits) for bits in range(2, 9)),
    CodeType("ternary", 2),
    CodeType("odd", 1),
    *(CodeType("log2", bits) for bits in range(2, 5)),
]
WEIGHT_CODES = [
    *INPUT_CODES[:16],
    *(CodeType("odd", bits) for bits in range(1, 9)),
    *(CodeType("log2", bits) for bits in range(2, 5)),
]


class Net:
    """A graph in the making; values are names, and `kind` tells their types."""

    def __init__(self, seed: int = 0, **inputs: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = inputs
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}

    def graph(self, *outputs: str) -> Graph:
        return check_graph(Graph(self.inputs, self.nodes, outputs or (self.nodes[-1].output,), self.constants))

    def kind(self, name: str) -> ValueType:
        return self.graph(*list(self.inputs)[:1]).types[name]

    def node(self, op: str, inputs: tuple[str, ...], attrs: dict[str, Any] | None = None, **constants: Constant) -> str:
        name = f"{op}{len(self.nodes)}"
        roles = {role: f"{name}.{role}" for role in constants}
        self.constants |= {roles[role]: constant for role, constant in constants.items()}
        self.nodes.append(Node(op, name, inputs, f"v{len(self.nodes)}", attrs or {}, roles))
        return f"v{len(self.nodes) - 1}"

    def chain(self, x: str, *steps: tuple[str, Any] | str, code: CodeType | None = None, zero: int = 0) -> str:
        entries, constants = [], {}
        for index, step in enumerate(steps):
            if isinstance(step, str):
                entries.append(Step(step))
                continue
            constants[f"k{index}"] = Constant.from_array(np.atleast_1d(np.asarray(step[1], np.float32)))
            entries.append(Step(step[0], f"k{index}"))
        attrs = {"steps": entries, "code": None if code is None else str(code), "zero": zero}
        return self.node("chain", (x,), attrs, **constants)

    def codes(self, x: str, code: CodeType, zero: int = 0) -> str:
        """Floats rounded to codes."""
        return self.chain(x, code=code, zero=zero)

    def weight(self, code: CodeType, *shape: int) -> Constant:
        return Constant.from_codes(self.rng.choice(np.asarray(code.levels), shape), code)

    def weight_f32(self, *shape: int) -> Constant:
        return Constant.from_array(self.rng.normal(size=shape).astype(np.float32))

    def conv(
        self, x: str, weight: Constant, stride: Any = (1, 1), padding: Any = (0, 0, 0, 0), dilation: Any = (1, 1), groups: int = 1
    ) -> str:
        attrs = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation), "groups": groups}
        return self.node("conv2d" if weight.code else "conv2d_f32", (x,), attrs, weight=weight)

    def linear(self, x: str, weight: Constant) -> str:
        return self.node("linear" if weight.code else "linear_f32", (x,), {}, weight=weight)

    def threshold(self, x: str, code: CodeType, spread: float) -> str:
        """Random thresholds about as wide as ``spread``; some channels constant, some turned round."""
        channels, steps = self.kind(x).shape[0], len(code.levels) - 1
        thresholds = np.sort(np.round(self.rng.normal(scale=spread, size=(channels, steps))).astype(np.int64), axis=1)
        direction = self.rng.choice([-1, 1], channels)
        thresholds[direction < 0] = thresholds[direction < 0][:, ::-1]
        constant = self.rng.random(channels) < 0.15
        thresholds[constant] = self.rng.choice([-(2**31), 2**31 - 1], (int(constant.sum()), 1))
        zero = code.lo if code.alphabet is Alphabet.UNSIGNED and self.rng.random() < 0.3 else 0
        return self.node(
            "threshold",
            (x,),
            {"code": str(code), "zero": zero},
            thresholds=Constant.from_array(thresholds.astype(np.int32)),
            direction=Constant.from_array(direction.astype(np.int32)),
        )

    def pool(self, op: str, x: str, kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> str:
        attrs = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
        attrs |= {"dilation": list(dilation)} if op == "max_pool2d" else {"divisor": int(np.prod(kernel))}
        return self.node(op, (x,), attrs)

    def pad(self, x: str, padding: Any, value: float) -> str:
        return self.node("pad2d", (x,), {"padding": list(padding), "value": value})

    def resize(self, x: str, height: int, width: int, mixed: bool) -> str:
        """Random rows and columns in any order; shares of a mix are often 0 or 1."""
        _, *size = self.kind(x).shape
        before = size if len(size) == 2 else [1, *size]
        tables = {}
        for role, weights, old, new in zip(("rows", "columns"), ("row_weights", "column_weights"), before, (height, width), strict=True):
            tables[role] = Constant.from_array(self.rng.integers(0, old, new).astype(np.int32))
            if mixed:
                shares = np.clip(self.rng.normal(0.5, 0.5, new), 0, 1)
                tables[weights] = Constant.from_array(shares.astype(np.float32))
        return self.node("resize2d", (x,), {}, **tables)

    def data(self, batch: int, name: str = "x", scale: float = 1.0) -> np.ndarray[Any, Any]:
        """Random input floats, some of them exactly halfway between integers."""
        x = self.rng.normal(scale=scale, size=(batch, *self.inputs[name]))
        return np.where(self.rng.random(x.shape) < 0.2, np.round(x) + 0.5, x).astype(np.float32)
