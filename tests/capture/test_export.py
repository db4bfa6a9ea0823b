"""Export: refusals by name, inexact layers marked, files whole or not at all."""

from __future__ import annotations

import copy
import errno
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.capture import VerifyReport, export, verify
from lobit.capture.capture import capture
from lobit.errors import ExportError, LobitError, ShapeError
from lobit.runtime import load
from tests.capture.nets import settle


def quantized(*layers, shape=(8,), bits="W2A2"):
    model = nn.Sequential(*layers)
    lobit.quantize_(model, bits)
    return settle(model, shape, 0)


def mlp():
    return quantized(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def test_two_bit_outputs_fold_into_thresholds_and_the_report_tells_sizes(tmp_path):
    model = mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = export(model, torch.randn(4, 8), tmp_path / "net.lobit")
    graph = load(tmp_path / "net.lobit").graph
    assert [node.op for node in graph.nodes] == ["chain", "linear", "threshold", "linear", "chain", "linear", "chain"]
    assert report.verification.ok
    assert report.file_bytes == (tmp_path / "net.lobit").stat().st_size
    assert "times less than float32" in str(report)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        y = F.relu(self.norm(self.conv(x)))
        y = F.hardtanh(y * 2 - 0.5).clamp(min=-0.25)
        y = y + F.relu6(y)
        return self.head(F.dropout(F.max_pool2d(y, 3, 2, 1), training=self.training).mean((2, 3)))


def test_functional_code_is_captured_and_what_is_inexact_is_marked(tmp_path):
    model = Functional()
    lobit.quantize_(model, "W4A4")
    settle(model, (3, 9, 9), 0)
    report = export(model, torch.randn(2, 3, 9, 9), tmp_path / "net.lobit")
    assert [name for name in report.inexact if "mean" in name]
    assert "head" in report.inexact  # behind the mean
    assert "conv" not in report.inexact
    with pytest.raises(ExportError, match=r"strict.*average pool"):
        export(model, torch.randn(2, 3, 9, 9), tmp_path / "strict.lobit", strict=True)
    assert not (tmp_path / "strict.lobit").exists()


def test_float_and_half_quantized_layers_run_and_are_inexact(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 12), nn.ReLU(), nn.Linear(12, 5)
    )
    lobit.quantize_(model, {"4": "W4", "6": "A4", "0": None})
    settle(model, (3, 8, 8), 0)
    x = torch.randn(7, 3, 8, 8)
    report = export(model, x, tmp_path / "net.lobit")
    assert {"0", "4", "6"} <= set(report.inexact)
    y = load(tmp_path / "net.lobit")(x.numpy())
    np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


class Refused(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.lin, self.what = nn.Linear(8, 8), what

    def forward(self, x):
        return self.what(self.lin(x))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda y: torch.softmax(y, 1), "softmax"),
        (lambda y: y * y, "only the sum"),
        (lambda y: y.reshape(-1, 2, 4), "flatten"),
        (lambda y: y.t(), "aten"),
        (lambda y: y.reshape(-1), "batch"),
        (lambda y: y / 0, "zero"),
        (lambda y: y if y.sum() > 0 else -y, "straight program"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name_before_anything_is_written(what, message, tmp_path):
    model = Refused(what)
    lobit.quantize_(model, "W2A2")
    for _ in range(2):
        model(torch.randn(4, 8))
    with pytest.raises(ExportError, match=message):
        export(model.eval(), torch.randn(4, 8), tmp_path / "net.lobit")
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_not_ready_are_refused(tmp_path):
    path = tmp_path / "net.lobit"
    fresh = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    lobit.quantize_(fresh, "W2A2")
    with pytest.raises(ExportError, match="training mode"):
        export(fresh, torch.randn(2, 8), path)
    with pytest.raises(ExportError, match="calibration"):
        export(fresh.eval(), torch.randn(2, 8), path)
    model = mlp()
    with pytest.raises(ShapeError, match="float64"):
        export(model, torch.randn(2, 8, dtype=torch.float64), path)
    with pytest.raises(ShapeError, match="finite"):
        export(model, torch.full((2, 8), float("nan")), path)
    with torch.no_grad():
        model[0].bias[3] = float("inf")
    with pytest.raises(ExportError, match=r"0\.bias"):
        export(model, torch.randn(2, 8), path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    model, path = mlp(), tmp_path / "net.lobit"
    export(model, torch.randn(2, 8), path)
    old = path.read_bytes()
    with torch.no_grad():
        model[0].weight.neg_()
    with monkeypatch.context() as patch:
        patch.setattr(VerifyReport, "ok", False)
        with pytest.raises(ExportError, match="nothing was written"):
            export(model, torch.randn(2, 8), path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ExportError, match="No space left"):
            export(model, torch.randn(2, 8), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ExportError, match="does not exist"):
        export(model, torch.randn(2, 8), tmp_path / "missing" / "net.lobit")


def test_verify_finds_a_changed_weight_and_a_foreign_file(tmp_path):
    model, other = mlp(), quantized(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.randn(32, 8)
    export(model, x, tmp_path / "net.lobit")
    with torch.no_grad():
        model[3].weight.mul_(-1)
    report = verify(model, tmp_path / "net.lobit", x)
    assert not report.ok
    assert "NOT the same" in str(report)
    assert any(row.first_difference for row in report.rows)
    with pytest.raises(LobitError, match="not a file of this model"):
        verify(other, tmp_path / "net.lobit", x)


def test_a_module_used_twice_has_its_codes_compared_twice(tmp_path):
    lin = nn.Linear(8, 8)
    model = quantized(nn.Linear(8, 8), nn.ReLU(), lin, nn.ReLU(), lin, nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 8)
    export(model, x, tmp_path / "net.lobit")
    report = verify(model, tmp_path / "net.lobit", x)
    assert report.ok
    assert [row.name for row in report.rows] == ["0.input", "2.input", "2.input@2", "6.input"]


def test_a_negative_batch_norm_before_a_max_pool_is_exact():
    model = quantized(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(24, 2), shape=(2, 6, 6)
    )
    assert (model[1].weight < 0).any()
    x = torch.randn(6, 2, 6, 6)
    assert verify(model, lobit.Session(capture(model, (x,)).graph), x).ok


def test_layers_in_a_plain_list_are_named(tmp_path):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norms = lobit.nn.Linear(4, 4), [nn.BatchNorm1d(4)]
            self.named = [self.a]  # fine: PyTorch knows it

        def forward(self, x):
            return self.norms[0](self.a(x))

    with pytest.raises(ExportError, match="'norms' keeps layers in a plain list"):
        lobit.export(Hidden().eval(), torch.randn(2, 4), tmp_path / "x.lobit")


def test_layers_that_quantize_gradients_alone_export_as_the_float_net(tmp_path):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    model = copy.deepcopy(plain)
    lobit.quantize_(model, "W32A32G6", first=None, last=None)
    x = torch.randn(4, 3, 6, 6)
    export(plain, x, tmp_path / "float.lobit")
    report = export(model, x, tmp_path / "net.lobit")
    assert (tmp_path / "net.lobit").read_bytes() == (tmp_path / "float.lobit").read_bytes()
    assert {"0", "2", "5"} <= set(report.inexact)
    assert verify(model, tmp_path / "net.lobit", x)
    assert all(model[index].gradient_quantizer is not None for index in (0, 2, 5))


def test_a_layer_by_itself_is_refused_with_what_to_do(tmp_path):
    layer, x = lnn.Linear(8, 4, weight_quantizer="sign", input_quantizer="sign").eval(), torch.randn(2, 8)
    with pytest.raises(ExportError, match=r"one layer by itself.*wrap it: torch\.nn\.Sequential"):
        lobit.export(layer, x, tmp_path / "net.lobit")
    assert not list(tmp_path.iterdir())
    lobit.export(nn.Sequential(layer).eval(), x, tmp_path / "net.lobit")
    assert lobit.verify(nn.Sequential(layer).eval(), tmp_path / "net.lobit", x).ok
