"""Upsampling: torch's in training, one order of operations in eval, and tables that are torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit.convert import quantize_
from lobit.errors import ConfigError
from lobit.nn.resize import axis
from tests.devices import DEVICES

LAYERS = [
    {"scale_factor": 2},
    {"size": (7, 5), "mode": "nearest"},
    {"scale_factor": (1.5, 2.7), "mode": "nearest-exact"},
    {"scale_factor": 2, "mode": "bilinear"},
    {"scale_factor": (1.5, 0.6), "mode": "bilinear", "align_corners": True},
    {"size": (9, 1), "mode": "bilinear", "align_corners": True},
    {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
    {"size": 3, "mode": "bilinear"},
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("setting", LAYERS, ids=str)
def test_training_is_torchs_and_eval_as_near_as_rounding(setting, device):
    torch.manual_seed(0)
    ours, theirs = lnn.Upsample(**setting), nn.Upsample(**setting)
    x = torch.randn(2, 3, 4, 6, device=device)
    results = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        y = layer(given)
        (gradient,) = torch.autograd.grad(y.square().sum(), given)
        results.append((y, gradient))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    given = x.clone().requires_grad_()
    y = ours.eval()(given)
    bound = 0.0 if "nearest" in ours.mode else 4 * torch.finfo().eps * float(x.abs().max())
    assert float((y - theirs(x)).detach().abs().max()) <= bound
    (gradient,) = torch.autograd.grad(y.square().sum(), given)
    torch.testing.assert_close(gradient, results[1][1], rtol=1e-5, atol=1e-5)
    for memory in (x.contiguous(memory_format=torch.channels_last), x[:1]):
        assert torch.equal(ours(memory), y[: len(memory)])


@settings(max_examples=150)
@given(
    before=st.integers(1, 60),
    after=st.integers(1, 130),
    factor=st.sampled_from([None, 1, 2, 3, 4]),
    mode=st.just("nearest"),
)
def test_nearest_places_are_torchs(before, after, factor, mode):
    if factor is not None and int(before * factor) < 1:
        return
    x = torch.arange(before, dtype=torch.float32).reshape(1, 1, before)
    image = x.unsqueeze(2).expand(1, 8, before, before)
    for form in (x, image.contiguous(), image.contiguous(memory_format=torch.channels_last)):
        y = F.interpolate(form, size=after, mode=mode) if factor is None else F.interpolate(form, scale_factor=factor, mode=mode)
        places, shares = axis(before, y.shape[-1], factor, mode, None, image=form.ndim == 4)
        assert shares is None
        assert y[0, -1].reshape(-1, len(places))[0].tolist() == places.tolist()


@settings(max_examples=100)
@given(
    before=st.integers(1, 40),
    after=st.integers(1, 90),
    factor=st.one_of(st.none(), st.floats(0.2, 4.0)),
    align=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_linear_is_the_formula_in_float64(before, after, factor, align, seed):
    x = np.random.default_rng(seed).normal(size=(1, 2, before)).astype(np.float32)
    setting = {"size": after} if factor is None else {"scale_factor": factor}
    if factor is not None and int(before * factor) < 1:
        return
    y = lnn.Upsample(**setting, mode="linear", align_corners=align).eval()(torch.from_numpy(x)).numpy()
    count = y.shape[2]
    i = np.arange(count)
    if align:
        at = i * ((before - 1) / max(count - 1, 1))
    else:
        at = np.maximum((i + 0.5) * (before / after if factor is None else 1 / factor) - 0.5, 0)
    expected = np.stack([np.interp(at, np.arange(before), row.astype(np.float64)) for row in x[0]])
    np.testing.assert_allclose(y[0], expected, atol=2e-6 * (1 + before), rtol=0)


def test_a_constant_image_stays_the_same_constant():
    value = torch.tensor(0.1)
    layer = lnn.Upsample(scale_factor=2.3, mode="bilinear").eval()
    assert (layer(value.expand(1, 1, 5, 7)) == value).all()


def test_another_mode_is_refused_and_left_by_the_conversion():
    with pytest.raises(ConfigError, match="not 'bicubic'; use torch.nn.Upsample"):
        lnn.Upsample(scale_factor=2, mode="bicubic")
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2, mode="bicubic"), nn.UpsamplingBilinear2d(scale_factor=2))
    rows = {row.path: row for row in quantize_(net, "W4A4").rows}
    assert not rows["1"].replaced or rows["1"].note
    assert type(net[1]) is nn.Upsample
    assert type(net[2]) is lnn.UpsamplingBilinear2d
    assert rows["2"].note == "one order of operations in eval"
    x = torch.randn(2, 1, 3, 3)
    torch.testing.assert_close(net[2].eval()(x), nn.UpsamplingBilinear2d(scale_factor=2)(x))


def test_a_volume_keeps_torchs_nearest():
    x = torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(lnn.Upsample(scale_factor=2).eval()(x), F.interpolate(x, scale_factor=2))


def test_bf16_and_a_compiled_graph_work():
    layer, x = lnn.Upsample(scale_factor=2, mode="bilinear").eval(), torch.randn(1, 2, 4, 4)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_no_images_is_resized_as_torch_does(mode, training):
    x = torch.empty(0, 3, 4, 5)
    assert lnn.Upsample(scale_factor=1.7, mode=mode).train(training)(x).shape == nn.Upsample(scale_factor=1.7, mode=mode)(x).shape
