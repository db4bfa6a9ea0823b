"""Branches joined along the channels: captured, with the quantizer behind them in each branch, the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit
from lobit.capture import export, verify
from lobit.errors import ExportError
from lobit.runtime import load
from tests.capture.nets import settle


class Branches(nn.Module):
    """A squeeze, two expansions of odd widths side by side, and a head on both flattened halves."""

    def __init__(self, dim=1):
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(3, 33, 1), nn.Conv2d(33, 7, 1), nn.Conv2d(33, 30, 3, padding=1)
        self.norm, self.after, self.head, self.dim = nn.BatchNorm2d(40), nn.Conv2d(40, 5, 2), nn.Linear(5 * 12 + 3 * 20, 4), dim

    def forward(self, x):
        y = torch.relu(self.squeeze(x))
        y = self.after(torch.relu(self.norm(torch.cat([self.one(y), self.three(y), x], self.dim))))
        return self.head(torch.cat((y.flatten(1), x.flatten(1)), -1))


@pytest.mark.parametrize("bits", ["W1A1", "W2A2", "W4A8"])
@pytest.mark.parametrize("dim", [1, -3])
def test_branches_side_by_side_equal_pytorch(bits, dim, tmp_path):
    model = Branches(dim)
    lobit.quantize_(model, bits)
    settle(model, (3, 5, 4), 0)
    x = torch.randn(33, 3, 5, 4)
    export(model, x, tmp_path / "net.lobit", strict=True)
    for isa in lobit.runtime.isas():
        report = verify(model, load(tmp_path / "net.lobit", isa=isa, threads=2), x)
        assert report.ok, str(report)
    graph = load(tmp_path / "net.lobit").graph
    assert [graph.types[node.output].kind for node in graph.nodes if node.op == "concat"] == ["f32", "codes"]  # others read x


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(11, 4, 1)

    def forward(self, x):
        return self.head(torch.relu(torch.concat([self.left(x), self.right(x)], 1)))


def test_a_quantizer_behind_the_join_runs_in_the_layers_ahead_of_it(tmp_path):
    model = Two()
    lobit.quantize_(model, "W2A2")
    settle(model, (3, 5, 4), 0)
    export(model, torch.randn(8, 3, 5, 4), tmp_path / "net.lobit", strict=True)
    graph = load(tmp_path / "net.lobit").graph
    (join,) = (node for node in graph.nodes if node.op == "concat")
    assert [graph.types[name].kind for name in join.inputs] == ["codes", "codes"]
    assert join.output == "head.input"
    assert str(graph.types["head.input"]).endswith("(11, 5, 4)")


class Joined(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.conv, self.join = nn.Conv2d(3, 3, 1), join

    def forward(self, x):
        return self.join(self.conv(x))


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (lambda y: torch.cat([y, y], 2), "dim 1"),
        (lambda y: torch.cat([y, y]), "batch axis"),
        (lambda y: torch.cat([y, torch.zeros_like(y)], 1), "zeros_like"),
        (lambda y: torch.cat([y] * 65, 1), "2 to 64"),
    ],
)
def test_other_joins_are_refused_by_name(join, message, tmp_path):
    model = Joined(join)
    lobit.quantize_(model, "W4A4")
    settle(model, (3, 5, 4), 0)
    with pytest.raises(ExportError, match=message):
        export(model, torch.randn(2, 3, 5, 4), tmp_path / "net.lobit")
    assert list(tmp_path.iterdir()) == []
