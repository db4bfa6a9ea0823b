"""Draw docs/pictures/concepts.svg: how codes become a sum, a threshold and a code again, with the numbers of a network that is exported and run.

usage: python -m scripts.concepts_figure
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.atomic import atomic_file
from lobit.format import read_file
from scripts.drawing import Drawing

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "concepts.svg"
TITLE = (
    "One output of a layer of 8 one-bit inputs: the signs of the inputs and of the latent weights are stored as bits; the sum of their products is "
    "8 minus twice the number of bits that differ; batch norm and the next sign are one comparison of that sum with an integer threshold"
)

INPUTS = (0.7, -0.3, 1.2, -0.8, 0.1, -1.5, 0.4, 0.9)
LATENT = (0.42, -0.91, 0.08, 0.63, 0.77, -0.25, -0.36, 0.51)
GAMMA, BETA, MEAN, VARIANCE = 0.8, -0.55, 0.4, 6.2


@dataclass(frozen=True)
class Facts:
    """What the exported file and its session say of the neuron."""

    input_codes: list[int]
    weight_codes: list[int]
    weight_word: int
    sum: int
    threshold: int
    direction: int
    a: float
    b: float
    code: int


def model() -> nn.Module:
    """A layer of 8 inputs and one output, its batch norm, and a layer whose quantizer takes the sign."""
    net = nn.Sequential(
        lnn.Linear(8, 1, bias=False, weight_quantizer="sign", input_quantizer="sign"),
        lnn.BatchNorm1d(1),
        lnn.Linear(1, 1, bias=False, weight_quantizer="sign", input_quantizer="sign"),
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([LATENT]))
        net[2].weight.fill_(1.0)
        for name, value in (("weight", GAMMA), ("bias", BETA), ("running_mean", MEAN), ("running_var", VARIANCE)):
            getattr(net[1], name).fill_(value)
    return net.eval()


def facts() -> Facts:
    """Export the network, read the file, run it."""
    x = torch.tensor([INPUTS])
    net = model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lobit"
        lobit.export(net, x, path, strict=True)
        graph, session = read_file(path), lobit.load(path)
    weight = graph.constants["0.weight"]
    fold = next(node for node in graph.nodes if node.op == "threshold")
    thresholds, direction = (graph.constants[fold.constants[role]].data for role in ("thresholds", "direction"))
    codes = session.run_values(x.numpy(), ["0.input", "2.input"])
    with torch.inference_mode():
        sums = net[0](x)
        ends = net[1](torch.tensor([[0.0], [1.0]]))
    return Facts(
        codes["0.input"][0].tolist(),
        weight.codes()[0].tolist(),
        int(weight.data[0, 0, 0]),
        int(sums[0, 0]),
        int(thresholds[0, 0]),
        int(direction[0]),
        float(np.float32(GAMMA / np.sqrt(np.float64(np.float32(VARIANCE)) + net[1].eps))),
        float(ends[0, 0]),
        int(codes["2.input"][0, 0]),
    )


CELL, GAP, LEFT = 52, 6, 212
COLUMNS = [LEFT + i * (CELL + GAP) for i in range(8)]
RIGHT = COLUMNS[-1] + CELL + 22


def draw(f: Facts) -> Drawing:
    """The picture."""
    d = Drawing(860, 764)
    x_bits, w_bits = ([(code + 1) // 2 for code in codes] for codes in (f.input_codes, f.weight_codes))
    differ = [x ^ w for x, w in zip(x_bits, w_bits, strict=True)]
    _operand(d, 16, ("input", "floats, from the layer before"), "x", INPUTS, f.input_codes, x_bits)
    _operand(d, 186, ("latent weights", "floats, kept for training"), "w", LATENT, f.weight_codes, w_bits)
    _differences(d, 356, differ, sum(differ), f)
    _threshold(d, 470, f)
    return d


def _operand(
    d: Drawing, y: float, name: tuple[str, str], letter: str, floats: tuple[float, ...], codes: list[int], bits: list[int]
) -> None:
    """Floats, their signs, and the bits that are stored."""
    d.text(24, y + 20, name[0], bold=True)
    d.text(24, y + 36, name[1], "series-5", size=11.5)
    d.text(24, y + 72, f"codes  sign({letter})", bold=True)
    d.text(24, y + 88, "what PyTorch computes with", "series-5", size=11.5)
    d.text(24, y + 124, "bits", bold=True)
    d.text(24, y + 140, "what is stored", "series-5", size=11.5)
    for column, value, code, bit in zip(COLUMNS, floats, codes, bits, strict=True):
        middle = column + CELL / 2
        d.rect(column, y, CELL, 40, fill="soft")
        d.text(middle, y + 25, f"{value:.2f}".replace("-", "−"), size=13, anchor="middle")
        d.line([(middle, y + 41), (middle, y + 51)], "series-5", width=1.2)
        d.rect(column, y + 52, CELL, 40, fill="series-0" if code > 0 else "none", stroke="series-0")
        d.text(middle, y + 77, "+1" if code > 0 else "−1", "page" if code > 0 else "series-0", anchor="middle", bold=True)
        d.line([(middle, y + 93), (middle, y + 103)], "series-5", width=1.2)
        d.rect(column, y + 104, CELL, 40, fill="series-1" if bit else "none", stroke="series-1")
        d.text(middle, y + 129, str(bit), "page" if bit else "series-1", anchor="middle", bold=True)
    d.text(RIGHT, y + 20, f"{len(codes)} × 32 bits", "series-5", size=13)
    d.text(RIGHT, y + 72, "+1 if ≥ 0, else −1", "series-5", size=13)
    d.text(RIGHT, y + 120, f"{len(codes)} bits", "series-1", size=13, bold=True)
    d.text(RIGHT, y + 138, f"word {sum(bit << i for i, bit in enumerate(bits)):#04x}", "series-1", size=13)


def _differences(d: Drawing, y: float, differ: list[int], count: int, f: Facts) -> None:
    """The bits that differ, and the sum from their number."""
    d.text(24, y + 20, "x XOR w", bold=True)
    d.text(24, y + 36, "1 where the codes differ", "series-5", size=11.5)
    for column, bit in zip(COLUMNS, differ, strict=True):
        d.rect(column, y, CELL, 40, fill="series-1" if bit else "none", stroke="series-1")
        d.text(column + CELL / 2, y + 25, str(bit), "page" if bit else "series-1", anchor="middle", bold=True)
    d.text(RIGHT, y + 16, "popcount", "series-5", size=13)
    d.text(RIGHT, y + 36, f"P = {count}", "series-1", size=16, bold=True)
    products = [x * w for x, w in zip(f.input_codes, f.weight_codes, strict=True)]
    spelled = " ".join("+1" if p > 0 else "−1" for p in products)
    d.text(24, y + 72, "sum", bold=True)
    d.text(24, y + 88, "two ways, one integer", "series-5", size=11.5)
    d.text(LEFT, y + 78, f"s = {spelled} = {f.sum}", "series-0", size=15, bold=True)
    d.text(RIGHT - 22, y + 78, f"s = 8 − 2P = {8 - 2 * count}", "series-1", size=15, bold=True, anchor="end")


def _threshold(d: Drawing, top: float, f: Facts) -> None:
    """Batch norm over all sums that 8 inputs can make, and the integer that says the same as its sign."""
    zero, unit, rise = top + 142, 27.0, 29.0
    middle = LEFT + (8 * (CELL + GAP) - GAP) / 2

    def at(s: float) -> float:
        return middle + s * unit

    def norm(s: float) -> float:
        return f.a * s + f.b

    split, first, last = at(f.threshold), at(-8.6), at(8.6)
    d.rect(first, top, split - first, 248, fill="soft", radius=0)
    d.rect(split, top, last - split, 248, stroke="series-0", radius=0)
    d.text(24, top + 20, "batch norm", bold=True)
    d.text(24, top + 36, "floats, in PyTorch:", "series-5", size=11.5)
    d.text(24, top + 53, f"y = {f.a:.3f} · s {'+' if f.b >= 0 else '−'} {abs(f.b):.3f}", "series-2", size=13)
    d.text(24, top + 70, "code = sign(y)", "series-0", size=13)
    d.text(24, top + 130, "the same, folded", bold=True)
    d.text(24, top + 146, "integers, in the file:", "series-5", size=11.5)
    compare = "≥" if f.direction > 0 else "≤"
    d.text(24, top + 163, f"code = +1 if s {compare} {f.threshold},", "series-1", size=13)
    d.text(24, top + 181, "−1 otherwise", "series-1", size=13)
    d.text(first + 10, top + 20, "−1", "series-0", bold=True)
    d.text(last - 10, top + 20, "+1", "series-0", bold=True, anchor="end")
    d.line([(first, zero), (last, zero)], "text", width=1)
    d.text(last + 8, zero + 4, "y = 0", "series-5", size=12)
    d.line([(at(-8.3), zero - norm(-8.3) * rise), (at(8.3), zero - norm(8.3) * rise)], "series-2", width=2)
    d.text(last + 8, zero - norm(8.3) * rise + 4, "y of each sum", "series-2", size=12)
    d.line([(split, top - 8), (split, top + 248)], "series-1", width=2, dash="5 4")
    d.text(split, top - 13, f"threshold {f.threshold}", "series-1", size=13, anchor="middle", bold=True)
    for s in range(-8, 9, 2):
        plus = norm(s) >= 0
        d.line([(at(s), zero - 3), (at(s), zero + 3)], "text", width=1)
        d.circle(at(s), zero - norm(s) * rise, 5, fill="series-0" if plus else "page", stroke="series-0")
        d.text(at(s), top + 266, str(s).replace("-", "−"), "text" if s != f.sum else "series-0", size=13, anchor="middle", bold=s == f.sum)
    d.text(last + 8, top + 266, "sum s", "series-5", size=12)
    here, value = at(f.sum), norm(f.sum)
    d.circle(here, zero - value * rise, 10, fill="none", stroke="text", width=1.5)
    d.text(RIGHT, top + 182, f"s = {f.sum}, y = {value:.2f}", "text", size=13)
    d.text(RIGHT, top + 203, f"code {f.code:+d}, bit {(f.code + 1) // 2}".replace("-", "−"), "series-0", size=15, bold=True)
    d.text(RIGHT, top + 221, "for the next layer", "series-5", size=11.5)


def main() -> None:
    """Run from the command line."""
    with atomic_file(PICTURE) as stream:
        stream.write(draw(facts()).svg(TITLE).encode())


if __name__ == "__main__":
    main()
