"""Values of two axes: models of (N, C, L) are captured with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.capture import export, verify
from lobit.errors import ExportError, ShapeError
from lobit.runtime import load
from tests.capture.nets import settle


class Signal(nn.Module):
    """Batch norm and pools of one axis ahead of a quantized head."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = lnn.BatchNorm1d(3), nn.Linear(3 * 6, 4)

    def forward(self, x):
        y = F.relu(self.norm(F.pad(x, (2, 0), value=-0.25)))
        return self.head(F.max_pool1d(y, 3, 2, 1).flatten(1))


def test_pools_and_padding_of_one_axis_are_exact(tmp_path):
    model = Signal()
    lobit.quantize_(model, "W4A4")
    settle(model, (3, 9), 0)
    x = torch.randn(17, 3, 9)
    report = export(model, x, tmp_path / "net.lobit", strict=True)
    assert not report.inexact
    for isa in lobit.runtime.isas():
        session = load(tmp_path / "net.lobit", isa=isa, threads=2)
        assert verify(model, session, x).ok
        np.testing.assert_array_equal(session(x.numpy()), model(x).detach().numpy())


class Float(nn.Module):
    """Float convolutions along a row, and every pool of one axis, some with several outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(4, 6, 3, 2, 1, 2, 2), nn.BatchNorm1d(6)
        self.second = nn.Conv1d(6, 5, 4, padding="same")

    def forward(self, x):
        y = self.second(F.prelu(self.norm(self.first(x)), self.norm.weight))
        return (
            y,
            F.avg_pool1d(y, 3, 2, 1),
            F.adaptive_avg_pool1d(y, 2),
            F.adaptive_max_pool1d(y, 5),
            y.mean(-1),
            y.mean(2, keepdim=True),
            y.amax(2),
            torch.cat([y, y], 1),
        )


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_float_layers_and_all_reductions_of_one_axis_are_captured(tmp_path):
    model = Float().eval()
    x = torch.randn(7, 4, 21)
    with torch.no_grad():
        wanted = model(x)
    assert wanted[0].shape == (7, 5, 10)
    export(model, x, tmp_path / "net.lobit")
    for found, expected in zip(load(tmp_path / "net.lobit")(x.numpy()), wanted, strict=True):
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


class Image(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, x):
        return self.reduce(x * 2.0)


@pytest.mark.parametrize(
    "reduce",
    [
        lambda y: y.amax((2, 3)),
        lambda y: y.amax((-1, -2), keepdim=True),
        lambda y: F.adaptive_max_pool2d(y, (2, 1)),
        lambda y: F.adaptive_max_pool2d(y, 1).flatten(1),
        lambda y: y.mean((2, 3), keepdim=True),
        lambda y: y.mean((3, 2)),
    ],
)
def test_reductions_of_images_are_captured(reduce, tmp_path):
    x = torch.randn(5, 3, 4, 6)
    export(Image(reduce).eval(), x, tmp_path / "net.lobit")
    found, wanted = load(tmp_path / "net.lobit")(x.numpy()), reduce(x * 2.0).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (lambda y: F.linear(y, torch.ones(2, 9)), "linear"),
        (lambda y: y.mean(1), "length"),
        (lambda y: y.amax((1, 2)), "length"),
        (lambda y: F.adaptive_avg_pool1d(y, 2), "divides"),
        (lambda y: F.avg_pool1d(y, 2, ceil_mode=True), "ceil_mode"),
    ],
)
def test_what_has_no_place_along_a_row_is_refused(reduce, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(Image(reduce).eval(), torch.randn(5, 3, 9), tmp_path / "net.lobit")


class Rows(nn.Module):
    def __init__(self, **quantizers):
        super().__init__()
        self.fc = lnn.Linear(9, 2, **quantizers)

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize("quantizers", [{}, {"weight_quantizer": "sign", "input_quantizer": "sign"}])
def test_a_linear_layer_on_rows_is_refused_with_what_to_do(quantizers, tmp_path):
    with pytest.raises(ExportError, match="flatten it first, or use a convolution with a kernel of 1"):
        export(Rows(**quantizers).eval(), torch.randn(5, 3, 9), tmp_path / "net.lobit")


def test_five_axes_are_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"\(N, C, L\)"):
        export(Image(lambda y: y).eval(), torch.randn(5, 3, 2, 2, 2), tmp_path / "net.lobit")
