"""Padding that a model does by itself: captured, merged where it is real 0, the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.capture import export, verify
from lobit.errors import ExportError, LobitError
from lobit.runtime import load
from tests.capture.nets import settle

EIGHT = {"weight_quantizer": {"name": "lsq", "bits": 8}, "input_quantizer": {"name": "lsq", "bits": 8}}
SIGN = {"weight_quantizer": "sign", "input_quantizer": "sign"}


class Padded(nn.Module):
    """Two convolutions, each behind a padding of its own."""

    def __init__(self, pad, **quantizers):
        super().__init__()
        self.pad, self.first, self.norm = pad, lnn.Conv2d(3, 5, 3, **EIGHT), lnn.BatchNorm2d(5)
        self.second = lnn.Conv2d(5, 4, 3, 2, (1, 0), **quantizers)

    def forward(self, x):
        return self.second(self.pad(F.relu(self.norm(self.first(self.pad(x))))))


def exported(model, tmp_path, shape=(3, 7, 6)):
    x = torch.randn(5, *shape)
    settle(model, shape, 0)
    export(model, x, tmp_path / "net.lobit")
    report = verify(model, tmp_path / "net.lobit", torch.randn(64, *shape) * 3)
    assert report.ok
    assert report.equal == report.compared
    return load(tmp_path / "net.lobit").graph


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 2, 0)), nn.ConstantPad2d((0, 1, 2, 0), 0.0), lambda x: F.pad(x, (0, 1, 2, 0))])
def test_uneven_zero_padding_becomes_padding_of_the_layers(pad, tmp_path):
    graph = exported(Padded(pad, **EIGHT), tmp_path)
    assert [node.attrs["padding"] for node in graph.nodes if node.op == "conv2d"] == [[2, 0, 0, 1], [3, 0, 1, 1]]
    assert not any(node.op == "pad2d" for node in graph.nodes)


def test_padding_ahead_of_a_sign_stays_and_pads_with_plus_one(tmp_path):
    graph = exported(Padded(nn.ZeroPad2d((1, 1, 1, 1)), **SIGN), tmp_path)
    assert [node.attrs["value"] for node in graph.nodes if node.op == "pad2d"] == [1]


def test_padding_with_another_value_and_the_same_layer_used_twice(tmp_path):
    graph = exported(Padded(nn.ConstantPad2d(1, 0.75), **EIGHT), tmp_path)
    assert sum(node.op == "pad2d" for node in graph.nodes) == 2


class Inexact(nn.Module):
    """A float layer ahead of padding that merges into the layer behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), lnn.Conv2d(4, 3, 3, padding=1, **EIGHT)

    def forward(self, x):
        return self.second(F.pad(self.first(x), (0, 2, 1, 0)))


def test_codes_that_an_inexact_layer_moved_are_judged_without_the_merged_border(tmp_path):
    model = settle(Inexact(), (3, 7, 6), 0)
    x = torch.randn(8, 3, 7, 6)
    export(model, x, tmp_path / "net.lobit")
    assert [node.attrs["padding"] for node in load(tmp_path / "net.lobit").graph.nodes if node.op == "conv2d"] == [[2, 1, 1, 3]]
    with torch.no_grad():
        model.first.bias.add_(model.second.input_quantizer.step)  # every code moves, by one level
    report = verify(model, tmp_path / "net.lobit", x)
    assert not report.ok
    (row,) = report.rows
    assert row.compared == 8 * 4 * 5 * 4
    assert row.moved > 0.8 * row.compared  # those at the ends of the range stay
    assert row.far == 0


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = lnn.Conv2d(2, 2, 3, padding="same", **EIGHT)

    def forward(self, x):
        return self.conv(F.pad(self.conv(F.pad(x, (2, 0))), (0, 0, 1, 0)))


def test_one_layer_called_twice_has_two_paddings(tmp_path):
    graph = exported(Twice(), tmp_path, (2, 5, 4))
    assert [node.attrs["padding"] for node in graph.nodes if node.op == "conv2d"] == [[1, 3, 1, 1], [2, 1, 1, 1]]


def test_a_file_with_other_padding_is_not_of_the_model(tmp_path):
    exported(Padded(nn.ZeroPad2d((0, 1, 2, 0)), **EIGHT), tmp_path)
    other = settle(Padded(nn.ZeroPad2d((1, 0, 2, 0)), **EIGHT), (3, 7, 6), 1)
    with pytest.raises(LobitError, match="not a file of this model"):
        verify(other, tmp_path / "net.lobit", torch.randn(4, 3, 7, 6))


class Functional(nn.Module):
    def __init__(self, pad):
        super().__init__()
        self.conv, self.pad = nn.Conv2d(3, 4, 3), pad

    def forward(self, x):
        return self.pad(self.conv(x))


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "constant"),
        (lambda x: F.pad(x, (-1, 1)), "not cut"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), "height and width"),
        (lambda x: F.pad(x.flatten(1), (1, 0)), "height and width"),
        (lambda x: F.pad(x, (1, 0), value=float("inf")), "finite"),
    ],
)
def test_other_paddings_are_refused_by_name(pad, message, tmp_path):
    model = Functional(pad)
    lobit.quantize_(model, "W4A4")
    settle(model, (3, 5, 5), 0)
    with pytest.raises(ExportError, match=message):
        export(model, torch.randn(2, 3, 5, 5), tmp_path / "net.lobit")
    assert list(tmp_path.iterdir()) == []


def test_padding_by_nothing_leaves_no_node(tmp_path):
    graph = exported(Padded(lambda x: F.pad(x, (0, 0, 0, 0)), **EIGHT), tmp_path)
    assert [node.attrs["padding"] for node in graph.nodes if node.op == "conv2d"] == [[0, 0, 0, 0], [1, 0, 1, 0]]
