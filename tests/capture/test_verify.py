"""Verification and export of models that peers' users write: keyword calls, dicts, shared quantizers, heads that nobody reads, layers left in float."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.capture.cut import cut_at
from lobit.capture.verify import inexact_values
from lobit.errors import ExportError, FormatError, ShapeError
from lobit.models import create
from lobit.quantizers import get
from lobit.runtime import Session, load
from tests.capture.nets import settle


class TwoHeads(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.a, self.b, self.result = nn.Linear(8, 4), nn.Linear(8, 3), result

    def forward(self, *args):
        return self.result(self.a(input=args[0]), self.b(args[0]))


def two_heads(result):
    model = TwoHeads(lambda a, b: torch.cat([a, b], 1))
    lobit.quantize_(model, "W4A4")
    settle(model, (8,), 0)
    model.result = result
    return model


@pytest.mark.parametrize("result", [lambda a, b: {"a": a, "b": b}, lambda a, b: ((a, b), a), lambda a, b: [b]])
def test_any_structure_of_outputs_and_parameters(result, tmp_path):
    if result(1, 2) == [2]:
        with pytest.raises(ExportError, match="'a' runs, but no output depends"):
            export(two_heads(result), torch.randn(4, 8), tmp_path / "net.lobit")
        return
    model, x = two_heads(result), torch.randn(4, 8)
    assert export(model, x, tmp_path / "net.lobit").verification.ok
    flat = torch.utils._pytree.tree_leaves(model(x))
    for ours, theirs in zip(flat, load(tmp_path / "net.lobit")(x.numpy()), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs)


def test_one_quantizer_for_two_layers(tmp_path):
    shared = get("sign", "activations")
    layers = [lnn.Linear(8, 8, weight_quantizer="sign", input_quantizer=shared) for _ in range(2)]
    model = settle(nn.Sequential(*layers), (8,), 0)
    report = export(model, torch.randn(4, 8), tmp_path / "net.lobit").verification
    assert [row.name for row in report.rows] == ["0.input", "1.input"]


def float_first(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    lobit.quantize_(model, {"2": "W4A4", "4": "W4A4"})
    return settle(model, (16,), 0)


def test_another_network_behind_a_float_layer_is_not_the_same(tmp_path):
    one, other = float_first(1), float_first(2)
    x = torch.randn(128, 16)
    export(one, x, tmp_path / "net.lobit")
    assert verify(one, tmp_path / "net.lobit", x).ok
    report = verify(other, tmp_path / "net.lobit", x)
    assert not report.ok
    assert "NOT the same" in str(report)


def test_a_code_moved_by_rounding_is_counted_and_the_rest_compared_from_there(monkeypatch):
    model, x = float_first(1), torch.randn(128, 16)
    session = Session(capture(model, (x,)).graph)
    true_codes = session.run_values([x.numpy()], ["2.input"])["2.input"]
    moved = true_codes.copy()
    at = np.argwhere(moved < moved.max())[0]
    moved[tuple(at)] += 1
    plain = Session.run_values

    def nudged(self, inputs, names):
        return {**plain(self, inputs, names), "2.input": moved}

    monkeypatch.setattr(Session, "run_values", nudged)
    report = verify(model, session, x)
    assert report.codes_moved
    assert report.ok
    assert "up to inexact layers" in str(report)


def test_a_cut_graph_goes_on_from_the_codes_it_is_given():
    model, x = float_first(1), torch.randn(9, 16)
    graph = capture(model, (x,)).graph
    session, cut = Session(graph), Session(cut_at(graph, ["2.input", "4.input"]))
    codes = session.run_values([x.numpy()], ["2.input", "4.input"])
    y, first, second = cut(x.numpy(), *(codes[name].astype(np.float32) - graph.types[name].zero for name in codes))
    np.testing.assert_array_equal(y, session(x.numpy()))
    np.testing.assert_array_equal(first, codes["2.input"])
    np.testing.assert_array_equal(second, codes["4.input"])


def test_codes_behind_a_foreign_batch_norm_are_inexact(tmp_path):
    model = nn.Sequential(
        lnn.Conv2d(3, 8, 3, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer={"name": "lsq", "bits": 8}),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        lnn.Conv2d(8, 4, 3, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer={"name": "lsq", "bits": 8}),
    )
    settle(model, (3, 9, 9), 0)
    graph = capture(model, (torch.randn(2, 3, 9, 9),)).graph
    assert "3.input" in inexact_values(graph)
    assert "0.input" not in inexact_values(graph)
    report = export(model, torch.randn(64, 3, 9, 9), tmp_path / "net.lobit").verification
    assert [row.exact for row in report.rows] == [True, False]


def test_wrong_inputs_and_examples_are_named(tmp_path):
    model, x = float_first(1), torch.randn(4, 16)
    export(model, x, tmp_path / "net.lobit")
    for wrong in (torch.randn(3, 7), torch.randn(3, 16, 1, 1)):
        with pytest.raises(ShapeError, match="must be"):
            verify(model, tmp_path / "net.lobit", wrong)
    with pytest.raises(ExportError, match=r"fails on the example, of shape \(3, 7\)"):
        export(model, torch.randn(3, 7), tmp_path / "net.lobit")
    assert export(model, torch.full((6, 16), 1e38) * torch.sign(torch.randn(6, 16)), tmp_path / "large.lobit").verification.ok


def test_paths_that_are_no_files_are_refused(tmp_path):
    model, x = float_first(1), torch.randn(4, 16)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "", "a\0b", None):
        with pytest.raises(ExportError):
            export(model, x, path)
        with pytest.raises(FormatError):
            load(path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    long = tmp_path / ("n" * 248 + ".lobit")
    export(model, x, long)
    assert load(long).graph.outputs


class Tail(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.fc, self.tail = nn.Linear(8, 8), tail

    def forward(self, x):
        return self.tail(self.fc(x))


def test_an_infinite_bound_is_none_and_float64_is_refused(tmp_path):
    for tail, allowed in ((lambda y: y.clamp(0, float("inf")), True), (lambda y: y.double(), False)):
        model = Tail(tail)
        lobit.quantize_(model, "W4A4")
        settle(model, (8,), 0)
        if allowed:
            export(model, torch.randn(4, 8), tmp_path / "net.lobit")
        else:
            with pytest.raises(ExportError, match="float64|no place"):
                export(model, torch.randn(4, 8), tmp_path / "net.lobit")


def test_the_papers_small_net_with_dropout_between_codes(tmp_path):
    model = settle(create("mnist-mlp-small", "W1A1", input_dropout=0.2, dropout=0.5), (1, 28, 28), 0)
    report = export(model, torch.rand(16, 1, 28, 28), tmp_path / "net.lobit").verification
    assert report.ok
    assert report.compared == report.equal


def test_batches_are_counted_together_and_name_the_first_difference_by_its_place_among_all(tmp_path):
    model = settle(nn.Sequential(lnn.Linear(8, 8, weight_quantizer="sign", input_quantizer="sign")), (8,), 0)
    x = torch.randn(10, 8)
    export(model, x, tmp_path / "net.lobit")
    whole, parts = verify(model, tmp_path / "net.lobit", x), verify(model, tmp_path / "net.lobit", x, batch=3)
    assert parts == whole
    assert parts.ok
    done = []

    class Turned(nn.Module):
        """Differs from the file in its eighth sample alone."""

        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            sign = torch.ones(len(x), 1)
            sign[(x == first).all(1)] = -1
            return self.inner[0](x * sign)

    first = x[7]
    turned = nn.Sequential(model[0]).eval()
    turned.forward = Turned().forward
    report = verify(turned, tmp_path / "net.lobit", x, batch=3, progress=lambda *figures: done.append(figures))
    assert not report.ok
    assert report.compared == 80
    assert report.equal == 72
    assert report.rows[0].first_difference.startswith("at (7, 0)")
    assert done == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_a_long_name_and_a_difference_fit_80_columns():
    from lobit.capture.verify import CodeRow, OutputRow, VerifyReport

    name = "backbone.stages.3.blocks.12.branch.convolution.input"
    rows = (CodeRow(name, False, 10**9, 10**9 - 5, "at (999, 511, 13, 13): -1 in PyTorch, 1 packed", 3, 1),)
    lines = str(VerifyReport(rows, (OutputRow(name, False, False, 1.25e-6),), 10_000)).splitlines()
    assert max(map(len, lines)) <= 80
