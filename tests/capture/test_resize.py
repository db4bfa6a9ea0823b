"""Upsampling in a file: lobit's layers bit for bit, PyTorch's nearest too, its bilinear marked inexact; codes stay codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.capture.capture import capture
from lobit.capture.export import export
from lobit.capture.verify import verify
from lobit.errors import ExportError
from lobit.quantizers import calibrating
from lobit.runtime import Session, isas, load

FOUR = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}
LAYERS = [
    lambda: lnn.Upsample(scale_factor=2),
    lambda: lnn.Upsample(size=(7, 5), mode="nearest-exact"),
    lambda: lnn.Upsample(scale_factor=(1.5, 2.4), mode="bilinear"),
    lambda: lnn.Upsample(size=(5, 1), mode="bilinear", align_corners=True),
    lambda: lnn.UpsamplingBilinear2d(scale_factor=2),
    lambda: lnn.UpsamplingNearest2d(size=(3, 9)),
]


def same(model, session, x):
    """All codes and outputs equal, none of them inexact."""
    report = verify(model, session, x)
    return all(row.exact and row.equal == row.compared for row in report.rows) and all(row.exact and row.equal for row in report.outputs)


def net(middle):
    torch.manual_seed(0)
    model = nn.Sequential(
        lnn.Conv2d(3, 35, 3, padding=1, **FOUR), lnn.BatchNorm2d(35), nn.ReLU(), middle, lnn.Conv2d(35, 4, 3, padding=1, **FOUR)
    )
    x = torch.randn(3, 3, 4, 6)
    model(x)
    return model.eval(), x


@pytest.mark.parametrize("make", LAYERS)
def test_a_file_gives_the_bits_of_eval_on_every_isa(make, tmp_path):
    model, x = net(make())
    assert not export(model, x, tmp_path / "net.lobit").inexact
    graph = load(tmp_path / "net.lobit").graph
    with torch.no_grad():
        expected = model(x).numpy()
    for isa in isas():
        for prefer in ("planes", "bytes"):
            session = Session(graph, isa=isa, prefer=prefer)
            np.testing.assert_array_equal(session(x.numpy()), expected)
            assert same(model, session, x)


@pytest.mark.parametrize("make", LAYERS)
def test_a_resized_output_has_the_bits_of_eval_on_every_isa(make):
    torch.manual_seed(0)
    model = nn.Sequential(lnn.Conv2d(3, 35, 3, padding=1, **FOUR), lnn.BatchNorm2d(35), make())
    x = torch.randn(3, 3, 4, 6)
    model(x)
    graph = capture(model.eval(), (x,)).graph
    with torch.no_grad():
        expected = model(x).numpy()
    for isa in isas():
        np.testing.assert_array_equal(Session(graph, isa=isa)(x.numpy()), expected)


def test_nearest_pixels_are_of_codes_behind_the_layer_that_makes_them():
    model, x = net(lnn.Upsample(scale_factor=2))
    graph = capture(model, (x,)).graph
    (node,) = [node for node in graph.nodes if node.op == "resize2d"]
    assert graph.types[node.inputs[0]].kind == graph.types[node.output].kind == "codes"
    makers = {made.output: made for made in graph.nodes}
    assert makers[node.inputs[0]].op in ("threshold", "chain")
    assert makers[makers[node.inputs[0]].inputs[0]].op == "conv2d"


class Functional(nn.Module):
    def __init__(self, **setting):
        super().__init__()
        self.setting = setting

    def forward(self, x):
        return F.interpolate(x, **self.setting)


@pytest.mark.parametrize(
    "setting",
    [
        {"scale_factor": 2},
        {"size": (9, 7)},
        {"size": (6, 4), "mode": "nearest-exact"},
        {"scale_factor": 2.6, "recompute_scale_factor": True},
    ],
)
def test_functional_nearest_is_exact(setting):
    model, x = net(Functional(**setting))
    captured = capture(model, (x,))
    session = Session(captured.graph)
    with torch.no_grad():
        np.testing.assert_array_equal(session(x.numpy()), model(x).numpy())
    assert same(model, session, x)


@pytest.mark.parametrize("setting", [{"scale_factor": 2}, {"size": (5, 9), "align_corners": True}])
def test_functional_bilinear_is_marked_inexact_and_near(setting):
    model, x = net(Functional(mode="bilinear", **setting))
    captured = capture(model, (x,))
    reasons = [layer.inexact for layer in captured.layers if layer.op == "resize2d"]
    assert "PyTorch's own bilinear" in reasons[0]
    report = verify(model, Session(captured.graph), x)
    assert report.ok
    assert any(not row.exact for row in report.rows)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("functional", [False, True])
def test_rows_are_resized_along_their_length(mode, functional):
    torch.manual_seed(0)
    middle = Functional(size=16, mode=mode) if functional else lnn.Upsample(scale_factor=1.6, mode=mode)
    model = nn.Sequential(lnn.Conv1d(2, 5, 3, **FOUR), middle, nn.ReLU(), lnn.Conv1d(5, 3, 3, **FOUR))
    x = torch.randn(3, 2, 12)
    model(x)
    session = Session(capture(model.eval(), (x,)).graph)
    report = verify(model, session, x)
    assert report.ok
    if mode == "nearest" or not functional:
        with torch.no_grad():
            np.testing.assert_array_equal(session(x.numpy()), model(x).numpy())


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.out = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x):
        first = F.relu(self.down(x))
        inner = F.relu(self.inner(F.max_pool2d(first, 2)))
        return self.out(torch.cat([first, self.up(inner)], 1))


def test_a_converted_unet_exports_to_a_file_and_to_c(tmp_path):
    torch.manual_seed(0)
    model, x = UNet(), torch.randn(2, 3, 8, 6)
    lobit.quantize_(model, "W4A4")
    with calibrating(model):
        model(x)
    export(model.eval(), x, tmp_path / "net.lobit")
    assert same(model, load(tmp_path / "net.lobit"), x)
    lobit.export_c(tmp_path / "net.lobit", tmp_path / "c")
    assert "lb_resize_mixed(" in (tmp_path / "c" / "net.c").read_text()


def test_another_mode_is_refused_by_name(tmp_path):
    model, x = net(Functional(size=(5, 7), mode="bicubic"))
    with pytest.raises(ExportError, match="upsample_bicubic2d"):
        export(model, x, tmp_path / "net.lobit")
