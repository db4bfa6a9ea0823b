"""Random graphs for the exporter: chains of every operator, and single layers of every alphabet, width and geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.format import Constant, Graph
from lobit.format.geometry import image_size, window_of
from tests.runtime.nets import INPUT_CODES, WEIGHT_CODES, Net

THRESHOLD_CODES = [
    CodeType("unsigned", 1),
    CodeType("unsigned", 2),
    CodeType("odd", 1),
    CodeType("odd", 2),
    CodeType("signed", 2),
    CodeType("ternary", 2),
]
Rng = np.random.Generator


def pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def zero_of(rng: Rng, code: CodeType) -> int:
    return int(rng.integers(code.lo, code.hi + 1)) if code.alphabet in (Alphabet.UNSIGNED, Alphabet.SIGNED) and rng.random() < 0.6 else 0


def window(rng: Rng, size: tuple[int, ...]) -> dict[str, Any]:
    """Kernel, stride, padding and dilation that fit an image."""
    while True:
        kernel, stride, dilation = (rng.integers(1, n, 2) for n in (5, 4, 3))
        padding = rng.integers(0, 3, 4)
        if all(size[a] + padding[a] + padding[a + 2] > dilation[a] * (kernel[a] - 1) for a in (0, 1)):
            return {
                key: value.tolist() for key, value in (("kernel", kernel), ("stride", stride), ("padding", padding), ("dilation", dilation))
            }


def layer(seed: int) -> tuple[Graph, np.ndarray[Any, Any]]:
    """One product on codes of an input, its sums the output."""
    rng = np.random.default_rng(seed)
    code, weight = pick(rng, INPUT_CODES), pick(rng, WEIGHT_CODES)
    if rng.random() < 0.3:
        inputs, outputs = (int(pick(rng, [1, 3, 31, 32, 33, 64, 65, 97, 130])) for _ in range(2))
        net = Net(seed, x=(inputs,))
        net.linear(net.codes("x", code, zero_of(rng, code)), net.weight(weight, outputs, inputs))
    else:
        channels = int(pick(rng, [1, 2, 3, 5, 16, 31, 32, 33, 40]))
        groups = int(pick(rng, [g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0]))
        size = tuple(int(n) for n in rng.integers(1, 8, 2))
        settings = window(rng, size)
        kernel = settings.pop("kernel")
        net = Net(seed, x=(channels, *size))
        outputs = groups * int(rng.integers(1, max(2, 40 // groups)))
        net.conv(
            net.codes("x", code, zero_of(rng, code)), net.weight(weight, outputs, channels // groups, *kernel), groups=groups, **settings
        )
    return net.graph(), net.data(3, scale=code.hi)


def extreme_layer(code: CodeType, weights: list[CodeType], zero: int, inputs: int) -> tuple[Graph, np.ndarray[Any, Any]]:
    """Sums as large as they can be, of both signs: all codes at their extremes; an output for each type of weights."""
    net = Net(0, x=(inputs,))
    x = net.codes("x", code, zero)
    sums = []
    for weight in weights:
        low, high = weight.levels[0], weight.levels[-1]
        rows = np.array([np.full(inputs, high), np.full(inputs, low), np.resize([high, low], inputs)])
        sums.append(net.linear(x, Constant.from_codes(rows, weight)))
    return net.graph(*sums), np.stack([np.full(inputs, 1e6), np.full(inputs, -1e6), np.resize([1e6, -1e6, -1e6], inputs)]).astype(
        np.float32
    )


class Builder:
    """A net that grows by random operators until it is tired."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.flat = self.rng.random() < 0.2
        axes = 0 if self.flat else 1 if self.rng.random() < 0.2 else 2
        shape = (int(pick(self.rng, [1, 2, 3, 8, 33])), *(int(n) for n in self.rng.integers(1, 10, axes)))
        self.net = Net(seed, x=shape)
        self.at = "x"
        self.made: list[str] = []

    def grow(self, steps: int) -> None:
        for _ in range(steps):
            kind = self.net.kind(self.at) if self.net.nodes else None
            what = "f32" if kind is None else kind.kind
            choice = {"f32": self.from_floats, "i32": self.from_sums, "codes": self.from_codes}[what]
            made = choice()
            if made is not None:
                self.at = made
                self.made.append(made)

    def shape(self) -> tuple[int, ...]:
        return self.net.kind(self.at).shape if self.net.nodes else self.net.inputs["x"]

    def operand(self, channels: int) -> Any:
        values = self.rng.normal(scale=3, size=int(pick(self.rng, [1, channels])))
        return np.where(np.abs(values) < 0.05, 1.0, values)

    def steps(self, channels: int) -> list[Any]:
        steps: list[Any] = [
            (pick(self.rng, ["add", "sub", "mul", "div", "max", "min"]), self.operand(channels)) for _ in range(self.rng.integers(0, 4))
        ]
        if self.rng.random() < 0.3:
            steps.append("round")
        return steps

    def quantize(self, first: list[str]) -> str:
        code = pick(self.rng, INPUT_CODES)
        scale = ("mul", np.float32(self.rng.uniform(0.2, 2)))
        return self.net.chain(self.at, *first, scale, *self.steps(self.shape()[0]), code=code, zero=zero_of(self.rng, code))

    def from_floats(self) -> str | None:
        shape, draw = self.shape(), self.rng.random()
        if self.rng.random() < 0.2:
            return self.move()
        if len(shape) > 1 and draw < 0.2:
            return self.pool()
        if len(shape) > 1 and draw < 0.3 and self.net.nodes:
            return self.net.node("flatten", (self.at,))
        if draw < 0.4 and self.net.nodes:
            twice = self.net.chain(self.at, ("mul", self.operand(shape[0])))
            return self.net.node("add", (self.at, twice))
        return self.quantize([]) if draw < 0.85 else self.net.chain(self.at, *self.steps(shape[0]))

    def from_sums(self) -> str | None:
        shape, draw = self.shape(), self.rng.random()
        if len(shape) > 1 and draw < 0.35:
            pooled = self.max_pool()
            if pooled is not None:
                return pooled
        if draw < 0.7:
            return self.net.threshold(self.at, pick(self.rng, THRESHOLD_CODES), float(self.rng.uniform(1, 200)))
        if draw < 0.85:
            return self.quantize(["to_float"])
        return self.net.chain(self.at, "to_float", *self.steps(shape[0]))

    def from_codes(self) -> str | None:
        shape, draw, kind = self.shape(), self.rng.random(), self.net.kind(self.at)
        weight = pick(self.rng, WEIGHT_CODES)
        if self.rng.random() < 0.2:
            return self.move()
        if len(shape) == 1:
            if draw < 0.15:
                return self.net.chain(self.at, "to_float", *self.steps(shape[0]))
            return self.net.linear(self.at, self.net.weight(weight, int(pick(self.rng, [1, 7, 32, 40])), shape[0]))
        if draw < 0.15:
            return self.net.node("flatten", (self.at,))
        if draw < 0.3:
            return self.max_pool()
        if draw < 0.35:
            return self.net.chain(self.at, "to_float", *self.steps(shape[0]))
        assert kind.code is not None
        settings = self.window()
        kernel = settings.pop("kernel")
        groups = int(pick(self.rng, [g for g in (1, 1, 2, shape[0]) if shape[0] % g == 0]))
        outputs = groups * int(self.rng.integers(1, max(2, 36 // groups)))
        return self.net.conv(self.at, self.net.weight(weight, outputs, shape[0] // groups, *kernel), groups=groups, **settings)

    def window(self) -> dict[str, Any]:
        """A window that fits the value; along a row it has one row."""
        shape = self.shape()
        if len(shape) == 3:
            return window(self.rng, shape[1:])
        settings = window(self.rng, (9, shape[1]))
        _, left, _, right = settings["padding"]
        return settings | {"kernel": [1, settings["kernel"][1]], "padding": [0, left, 0, right]}

    def move(self) -> str | None:
        """Padding, or values side by side: this one and others that are alike."""
        shape, kind = self.shape(), self.net.kind(self.at) if self.net.nodes else None
        if len(shape) > 1 and self.rng.random() < 0.5:
            sides = self.rng.integers(0, 3, 4) * ([1, 1, 1, 1] if len(shape) == 3 else [0, 1, 0, 1])
            value = pick(self.rng, kind.code.levels) if kind is not None and kind.code else float(self.rng.normal())
            return self.net.pad(self.at, sides.tolist(), value)
        if len(shape) > 1 and kind is not None and self.rng.random() < 0.5:
            height, width = self.rng.integers(1, 9, 2)
            mixed = kind.kind == "f32" and self.rng.random() < 0.6
            return self.net.resize(self.at, int(height) if len(shape) == 3 else 1, int(width), mixed)
        if kind is None:
            return None
        alike = [name for name in self.made if replace(self.net.kind(name), shape=(shape[0], *self.net.kind(name).shape[1:])) == kind]
        parts = [pick(self.rng, alike) for _ in range(self.rng.integers(1, 3))]
        return self.net.node("concat", (*parts, self.at)) if sum(self.net.kind(name).shape[0] for name in parts) < 200 else None

    def pool(self) -> str | None:
        if self.rng.random() < 0.5:
            return self.max_pool()
        settings = self.window()
        return self.net.pool("avg_pool2d", self.at, settings["kernel"], settings["stride"], settings["padding"])

    def max_pool(self) -> str | None:
        for _ in range(20):
            settings = self.window()
            if self.rng.random() < 0.5:
                settings |= {"stride": settings["kernel"], "dilation": [1, 1]}
            try:
                fits = window_of(settings).always_meets(image_size(self.shape()))
            except ValueError:
                continue
            if fits:
                return self.net.pool("max_pool2d", self.at, **settings)
        return None


def network(seed: int) -> tuple[Graph, Graph, np.ndarray[Any, Any]]:
    """A random net with its last value as output, the same net with every value an output, and inputs."""
    builder = Builder(seed)
    while not builder.made:
        builder.grow(int(builder.rng.integers(2, 9)))
    return builder.net.graph(), builder.net.graph(*builder.made), builder.net.data(3, scale=3)
