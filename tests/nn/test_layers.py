"""Layers: without quantizers they are torch's; with them, sums of codes are exact integers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lobit import nn as lnn
from lobit.errors import ConfigError, ShapeError

PAIRS = [
    ("Linear", (7, 5), {}, (3, 7)),
    ("Linear", (7, 5), {"bias": False}, (7,)),
    ("Linear", (7, 5), {}, (2, 3, 4, 7)),
    ("Conv1d", (4, 6, 3), {}, (2, 4, 9)),
    ("Conv1d", (4, 6, 2, 2, 1, 2, 2), {"bias": False}, (4, 9)),
    ("Conv1d", (4, 4, 4), {"padding": "same", "groups": 4, "dilation": 3}, (2, 4, 9)),
    ("Conv1d", (4, 6, 3), {"padding": 2, "padding_mode": "circular"}, (2, 4, 9)),
    ("Conv2d", (4, 6, (3, 2), (1, 2), (2, 1), (1, 2), 2), {}, (2, 4, 9, 8)),
    ("Conv2d", (4, 8, 3), {"groups": 4, "padding": "same"}, (4, 9, 8)),
    ("Conv2d", (4, 6, 3), {"padding": "valid", "bias": False}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "replicate"}, (2, 4, 9, 8)),
    ("Conv3d", (4, 6, (1, 3, 2), (2, 1, 1), (0, 1, 2), (1, 2, 1), 2), {}, (2, 4, 5, 6, 7)),
    ("Conv3d", (2, 3, 2), {"padding": "same"}, (2, 5, 6, 7)),
    ("Conv3d", (2, 3, 3), {"padding": 1, "padding_mode": "replicate", "bias": False}, (1, 2, 5, 6, 7)),
    ("ConvTranspose1d", (4, 6, 3), {}, (2, 4, 5)),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1, 2, False), {}, (4, 5)),
    ("ConvTranspose2d", (4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, True, (1, 2)), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 4, 2), {"groups": 4, "stride": 2}, (4, 5, 4)),
    ("ConvTranspose3d", (4, 2, 2, 2, 1, 1, 2), {}, (2, 4, 3, 4, 5)),
    ("ConvTranspose3d", (2, 3, (1, 2, 3)), {"dilation": 2, "bias": False}, (2, 3, 4, 5)),
    ("BatchNorm1d", (5,), {}, (6, 5)),
    ("BatchNorm1d", (5,), {"momentum": None}, (6, 5, 4)),
    ("BatchNorm2d", (5,), {"affine": False}, (4, 5, 3, 3)),
    ("BatchNorm2d", (5,), {"track_running_stats": False}, (4, 5, 3, 3)),
    ("BatchNorm3d", (5,), {}, (4, 5, 2, 3, 3)),
    ("AvgPool1d", (3, 2, 1), {}, (2, 3, 8)),
    ("AvgPool1d", (4,), {}, (3, 9)),
    ("AvgPool2d", (3, 2, 1), {}, (2, 3, 7, 6)),
    ("AvgPool2d", ((1, 2),), {"divisor_override": 3}, (3, 7, 6)),
    ("AvgPool3d", (3, 2, 1), {}, (2, 3, 4, 7, 6)),
    ("AvgPool3d", ((1, 2, 3), (2, 1, 1)), {"divisor_override": 5}, (3, 4, 7, 6)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 6)),
    ("AdaptiveAvgPool2d", (1,), {}, (2, 3, 5, 6)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (3, 5, 6)),
    ("AdaptiveAvgPool3d", ((2, None, 1),), {}, (2, 3, 4, 5, 6)),
    ("TransformerEncoderLayer", (8, 2, 12, 0.0), {}, (5, 3, 8)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 5, 6)),
    ("Upsample", ((7, 9), None, "bilinear", True), {}, (2, 3, 5, 6)),
    ("UpsamplingBilinear2d", (), {"scale_factor": 3}, (2, 3, 5, 6)),
    ("UpsamplingNearest2d", ((10, 12),), {}, (2, 3, 5, 6)),
]
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.mark.parametrize(("name", "args", "settings", "shape"), PAIRS)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_without_quantizers_is_torchs(name, args, settings, shape, training):
    torch.manual_seed(0)
    ours, theirs = (getattr(package, name)(*args, **settings).train(training) for package in (lnn, nn))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(shape)
    for layout in {torch.contiguous_format, LAYOUTS.get(len(shape), torch.contiguous_format)}:
        xs = [x.to(memory_format=layout, copy=True).requires_grad_() for _ in range(2)]
        ys = [layer(v) for layer, v in zip((ours, theirs), xs, strict=True)]
        torch.testing.assert_close(*ys, rtol=1e-6, atol=1e-6)
        for layer, y in zip((ours, theirs), ys, strict=True):
            layer.zero_grad()
            y.square().sum().backward()
        torch.testing.assert_close(xs[0].grad, xs[1].grad, rtol=1e-5, atol=1e-5)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_the_table_has_every_layer_that_torch_has_too():
    """Embedding takes indices, recurrent layers take a state, attention three inputs: they have their own tests."""
    own = {name for name in lnn.__all__ if getattr(lnn, name) is not getattr(nn, name, getattr(lnn, name))}
    assert own - {"MultiheadAttention", "Embedding", "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"} == {name for name, *_ in PAIRS}


@pytest.mark.parametrize("size", [(9, 7), (2, 6, 10, 8)])
def test_a_transposed_convolution_takes_an_output_size_as_torchs_does(size):
    ours, theirs = (package.ConvTranspose2d(4, 6, 3, (2, 2), 1) for package in (lnn, nn))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 5, 4)
    torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=list(size)))


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [("sign", "sign"), ({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8}), ("magnitude_sign", {"name": "lsq", "bits": 3})],
)
@pytest.mark.parametrize("features", [3, 600, 4096])
def test_eval_sums_are_exact_integers_also_beyond_float32(weights, inputs, features):
    torch.manual_seed(features)
    layer = lnn.Linear(features, 9, weight_quantizer=weights, input_quantizer=inputs)
    x = torch.rand(5, features) * 3
    layer(x)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.abs())  # no cancelling: sums as long as they get
    layer.eval()
    with torch.no_grad():
        cx, cw = layer.input_quantizer(x), layer.quantized_weight()
        sums = cx.codes.double().numpy().astype(np.int64) @ cw.codes.double().numpy().astype(np.int64).T
        scale = (cx.scale * cw.scale).flatten().numpy()
        expected = sums.astype(np.float32) * scale + layer.bias.numpy()
        np.testing.assert_array_equal(layer(x).numpy(), expected)


def test_padding_of_a_one_bit_convolution_is_real_zero():
    torch.manual_seed(0)
    layer = lnn.Conv2d(3, 4, 3, padding=1, bias=False, weight_quantizer="sign", input_quantizer="sign").eval()
    x = torch.randn(2, 3, 5, 5)
    expected = F.conv2d(F.pad(torch.where(x >= 0, 1.0, -1.0), (1, 1, 1, 1)), torch.where(layer.weight >= 0, 1.0, -1.0))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_lsq_gradient_through_a_layer_equals_fake_quantization():
    torch.manual_seed(0)
    layer = lnn.Linear(6, 4, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 4})
    x = torch.randn(8, 6)
    layer(x)
    fake = copy.deepcopy(layer)
    layer(x).square().sum().backward()
    (F.linear(fake.input_quantizer(x).values(), fake.weight_quantizer(fake.weight).values()) + fake.bias).square().sum().backward()
    for (name, a), (_, b) in zip(layer.named_parameters(), fake.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_eval_is_two_float32_operations(affine):
    torch.manual_seed(0)
    norm = lnn.BatchNorm2d(6, affine=affine)
    for _ in range(3):
        norm(torch.randn(8, 6, 4, 4) * 3 + 1)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    norm.eval()
    x = torch.randn(5, 6, 4, 4)
    w = norm.weight.double().detach().numpy() if affine else np.ones(6)
    bias = norm.bias.double().detach().numpy() if affine else np.zeros(6)
    a = w / np.sqrt(norm.running_var.double().numpy() + norm.eps)
    b = (bias - norm.running_mean.double().numpy() * a).astype(np.float32)
    expected = x.numpy() * a.astype(np.float32).reshape(1, 6, 1, 1) + b.reshape(1, 6, 1, 1)
    np.testing.assert_array_equal(norm(x).detach().numpy(), expected)
    y = norm(x.to(memory_format=torch.channels_last))
    np.testing.assert_array_equal(y.detach().numpy(), expected)


def test_kept_weight_codes_follow_every_change_of_the_weights():
    layer = lnn.Linear(4, 3, weight_quantizer="sign", input_quantizer="sign").eval()
    x = torch.ones(1, 4)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        assert layer(x).sum() > 0
        layer.weight.neg_()
        first = layer(x) - layer.bias
        layer.load_state_dict({**layer.state_dict(), "weight": torch.ones(3, 4)})
        second = layer(x) - layer.bias
    assert (first == -4).all()
    assert (second == 4).all()


def test_unsupported_settings_are_refused():
    with pytest.raises(ConfigError, match="zeros"):
        lnn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect", weight_quantizer="sign", input_quantizer="sign")
    with pytest.raises(ConfigError, match="ceil_mode"):
        lnn.AvgPool2d(2, ceil_mode=True)


def test_squared_hinge_is_the_papers_formula():
    y, labels = torch.tensor([[0.5, -2.0, 1.5], [0.0, 0.0, 0.0]]), torch.tensor([2, 0])
    t = np.array([[-1, -1, 1], [1, -1, -1]])
    expected = np.mean(np.maximum(0, 1 - t * y.numpy()) ** 2)
    assert float(lnn.SquaredHingeLoss()(y, labels)) == pytest.approx(expected, rel=1e-6)


def test_squared_hinge_has_the_formulas_gradient_and_stays_float32_for_narrow_logits():
    y, labels = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True),
        torch.tensor([0, 3, 1, 1, 2], dtype=torch.int32),
    )
    t = 2.0 * np.eye(4)[labels.numpy()] - 1
    lnn.SquaredHingeLoss()(y, labels).backward()
    np.testing.assert_allclose(y.grad.numpy(), -2 * t * np.maximum(0, 1 - t * y.detach().double().numpy()) / 20, rtol=1e-6, atol=1e-8)
    narrow = lnn.SquaredHingeLoss()(y.detach().bfloat16(), labels)
    assert narrow.dtype == torch.float32
    assert narrow == lnn.SquaredHingeLoss()(y.detach().bfloat16().float(), labels)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((4, 3), torch.zeros(4, 1, dtype=torch.int64), r"not \(4, 3\) and \(4, 1\)"),  # would broadcast
        ((1, 3), torch.zeros(4, dtype=torch.int64), r"not \(1, 3\) and \(4,\)"),  # so would this
        ((4,), torch.zeros(4, dtype=torch.int64), r"not \(4,\) and \(4,\)"),
        ((4, 3, 5), torch.zeros(4, 5, dtype=torch.int64), r"not \(4, 3, 5\)"),
        ((4, 1), torch.zeros(4, dtype=torch.int64), "two classes or more, not 1"),
        ((4, 3), torch.zeros(4), "not torch.float32"),
        ((4, 2), torch.zeros(4, dtype=torch.bool), "not torch.bool"),
    ],
)
def test_squared_hinge_refuses_logits_and_labels_that_do_not_belong_together(logits, labels, message):
    with pytest.raises(ShapeError, match=message):
        lnn.SquaredHingeLoss()(torch.zeros(logits), labels)


def test_an_adaptive_pool_that_does_not_divide_is_torchs_own():
    for shape in ((2, 3, 7, 5), (3, 8, 8), (3, 4, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(lnn.AdaptiveAvgPool2d(4)(x), nn.AdaptiveAvgPool2d(4)(x))
