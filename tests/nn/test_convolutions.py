"""Convolutions of all kinds: integer sums against loops over taps in 64-bit integers, gradients against fake quantization in float64."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import nn as lnn
from lobit.errors import ConfigError, ShapeError
from lobit.quantizers import GradientQuantizer, Quantized, Sign
from tests.capture.oracle import activation_codes, weight_codes
from tests.devices import DEVICES

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

FAMILIES = [
    ("sign", "sign"),
    ("magnitude_sign", {"name": "lsq", "bits": 1}),
    ({"name": "lsq", "bits": 2}, {"name": "lsq", "bits": 3}),
    ({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8}),
    ({"name": "dorefa", "bits": 3}, {"name": "linear", "bits": 2}),
]
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def rows_by_loop(layer):
    """Weights as (O, I / groups, ..), one output channel at a time."""
    w = layer.weight.detach().numpy()
    if isinstance(layer, torch.nn.modules.conv._ConvTransposeNd):
        per, wide = w.shape[0] // layer.groups, w.shape[1]
        w = np.stack([w[o // wide * per : (o // wide + 1) * per, o % wide] for o in range(layer.out_channels)])
    return w


def conv_by_loop(x, w, stride, border, dilation, groups, value=0):
    """Sums of a convolution: one tap of one group at a time, int64."""
    x = np.pad(x, [(0, 0), (0, 0), *border], constant_values=value)
    kernel = w.shape[2:]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    y = np.zeros((len(x), len(w), *counts), np.int64)
    wide, tall = x.shape[1] // groups, len(w) // groups
    for tap in itertools.product(*map(range, kernel)):
        at = tuple(slice(t * d, t * d + (c - 1) * s + 1, s) for t, c, s, d in zip(tap, counts, stride, dilation, strict=True))
        for g in range(groups):
            part = x[(slice(None), slice(g * wide, (g + 1) * wide), *at)]
            y[:, g * tall : (g + 1) * tall] += np.einsum("nc...,oc->no...", part, w[(slice(g * tall, (g + 1) * tall), slice(None), *tap)])
    return y


def transposed_by_loop(x, w, stride, padding, extra, dilation, groups):
    """Sums of a transposed convolution: each input pixel adds a patch to the output, int64."""
    kernel = w.shape[2:]
    full = [(n - 1) * s + d * (k - 1) + 1 + e for n, k, s, d, e in zip(x.shape[2:], kernel, stride, dilation, extra, strict=True)]
    y = np.zeros((len(x), len(w), *full), np.int64)
    wide, tall = x.shape[1] // groups, len(w) // groups
    for pixel in itertools.product(*map(range, x.shape[2:])):
        for tap in itertools.product(*map(range, kernel)):
            at = tuple(p * s + t * d for p, t, s, d in zip(pixel, tap, stride, dilation, strict=True))
            for g in range(groups):
                here = slice(g * tall, (g + 1) * tall)
                y[(slice(None), here, *at)] += x[(slice(None), slice(g * wide, (g + 1) * wide), *pixel)] @ w[(here, slice(None), *tap)].T
    return y[(slice(None), slice(None), *(slice(p, n - p) for p, n in zip(padding, full, strict=True)))]


def expected_output(layer, x):
    """The layer's output in eval from the formulas: codes, sums by loops, float32 times scale, float32 plus bias."""
    cx, sx = activation_codes(layer.input_quantizer, x.numpy())
    cw, sw = weight_codes(layer.weight_quantizer, rows_by_loop(layer))
    cx, cw = np.asarray(cx).astype(np.int64), np.asarray(cw).astype(np.int64)
    if isinstance(layer, torch.nn.modules.conv._ConvTransposeNd):
        sums = transposed_by_loop(cx, cw, layer.stride, layer.padding, layer.output_padding, layer.dilation, layer.groups)
    else:
        sums = conv_by_loop(cx, cw, layer.stride, layer.border, layer.dilation, layer.groups, layer.padding_value)
    assert np.abs(sums).max(initial=0) <= layer.accumulator_bound
    over = (-1, *[1] * (x.ndim - 2))
    scaled = sums.astype(np.float32) * (np.float32(1) * sx * sw).astype(np.float32).reshape(over)
    return scaled if layer.bias is None else scaled + layer.bias.detach().numpy().reshape(over)


@st.composite
def layers(draw):
    """A layer with quantizers and an input: every kind, one channel and one pixel included."""
    axes = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    weights, inputs = draw(st.sampled_from(FAMILIES))
    groups = draw(st.integers(1, 3))
    channels, out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    size = tuple(d * (k - 1) + draw(st.integers(1, 4)) for k, d in zip(kernel, dilation, strict=True))
    common = {"groups": groups, "bias": draw(st.booleans()), "stride": stride, "dilation": dilation}
    common |= {"weight_quantizer": weights, "input_quantizer": inputs}
    if draw(st.booleans()):
        padding = tuple(draw(st.integers(0, min(2, d * (k - 1) // 2))) for k, d in zip(kernel, dilation, strict=True))
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        size = each(1, 3)
        settings_ = {"padding": padding, "output_padding": extra}
        make = getattr(lnn, f"ConvTranspose{axes}d")
    else:
        words = ["same", "valid"] if stride == (1,) * axes else ["valid"]
        settings_ = {"padding": draw(st.sampled_from([each(0, 2), *words]))}
        if inputs == "sign":
            settings_["padding_value"] = draw(st.sampled_from([0, 1, -1]))
        make = getattr(lnn, f"Conv{axes}d")
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return make(channels, out, kernel, **common, **settings_), torch.randn(draw(st.sampled_from([1, 3])), channels, *size)


@settings(max_examples=150, deadline=None)
@given(made=layers())
def test_a_convolution_is_its_integer_sum_times_scale_plus_bias(made):
    layer, x = made
    layer(x)
    layer.eval()
    with torch.no_grad():
        expected = expected_output(layer, x)
        np.testing.assert_array_equal(layer(x).numpy(), expected)
        np.testing.assert_array_equal(layer(x[0]).numpy(), expected[0])
        if x.ndim > 3:
            np.testing.assert_array_equal(layer(x.to(memory_format=LAYOUTS[x.ndim - 2])).numpy(), expected)
        assert layer(x[:0]).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inputs", ["sign", None])
def test_a_volume_of_one_channel_is_right_in_either_reading_of_its_strides(inputs, training):
    """The sizes of a case where `torch.nn.functional.conv3d` itself leaves some outputs unset."""
    torch.manual_seed(0)
    layer = lnn.Conv3d(1, 2, (1, 2, 3), (1, 1, 2), weight_quantizer="sign", input_quantizer=inputs).train(training)
    x = torch.randn(3, 1, 2, 3, 4)
    y = layer(x)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last_3d)), y, rtol=0, atol=0)
    torch.testing.assert_close(layer.to(memory_format=torch.channels_last_3d)(x), y, rtol=0, atol=0)
    expected = F.conv3d(
        (x if inputs is None else torch.where(x >= 0, 1.0, -1.0)).double(),
        torch.where(layer.weight >= 0, 1.0, -1.0).double(),
        None,
        (1, 1, 2),
    )
    torch.testing.assert_close(y.double(), expected + layer.bias.reshape(-1, 1, 1, 1), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(made=layers())
def test_gradients_are_those_of_fake_quantization(made):
    """``torch.nn.functional``'s own function on ``scale * codes``, in float64."""
    layer, x = made
    layer(x)
    layer, x = layer.double(), x.double()
    fake = copy.deepcopy(layer)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = layer(ours), float_output(fake, theirs)
    torch.testing.assert_close(y, z, rtol=1e-6, atol=1e-6)  # scales are float32, and so is their product
    g = torch.randn_like(y)
    (y * g).sum().backward()
    (z * g).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-5)
    for (name, a), (_, b) in zip(layer.named_parameters(), fake.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-5, msg=name)


def float_output(layer, x):
    """The layer of torch on the values of its codes, weights taken apart and put together by loops over output channels."""
    inputs, axes = layer.input_quantizer(x), x.ndim - 2
    values = inputs.values()
    if isinstance(layer, torch.nn.modules.conv._ConvTransposeNd):
        per, wide = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        rows = [layer.weight[o // wide * per : (o // wide + 1) * per, o % wide] for o in range(layer.out_channels)]
        quantized = layer.weight_quantizer(torch.stack(rows)).values()
        parts = [torch.stack(tuple(quantized[g * wide : (g + 1) * wide]), 1) for g in range(layer.groups)]
        settings_ = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        return getattr(F, f"conv_transpose{axes}d")(values, torch.cat(parts), layer.bias, *settings_)
    pads = [pad for pair in reversed(layer.border) for pad in pair]
    if layer.padding_value:
        border = F.pad(torch.zeros_like(values), pads, value=layer.padding_value * float(inputs.scale))
        values = F.pad(values, pads) + border
    else:
        values = F.pad(values, pads)
    weight = layer.weight_quantizer(layer.weight).values()
    return getattr(F, f"conv{axes}d")(values, weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


@pytest.mark.parametrize("name", ["Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"])
def test_sums_pass_two_to_the_24(name):
    """W8A8 of one sign over 600 products and more, beyond what float32 holds: every sum stays the integer."""
    torch.manual_seed(0)
    axes = int(name[-2])
    kernel = {1: 3, 2: 2, 3: 1}[axes]
    eight = {"name": "lsq", "bits": 8}
    layer = getattr(lnn, name)(700, 3, kernel, weight_quantizer=eight, input_quantizer=eight)
    x = 200 + torch.randint(0, 56, (2, 700, *[3] * axes)).float()  # the codes themselves, where steps are 1
    layer(x)
    with torch.no_grad():
        layer.weight.copy_(-torch.randint(100, 129, layer.weight.shape).float())
        layer.weight_quantizer.step.fill_(1)
        layer.input_quantizer.step.fill_(1)
        layer.eval()
        expected = expected_output(layer, x)
        assert np.abs(expected).max() > 2**24
        assert layer.accumulator_bound > 2**24
        np.testing.assert_array_equal(layer(x).numpy(), expected)


@pytest.mark.parametrize(("name", "groups"), [("Conv1d", 6), ("Conv2d", 6), ("Conv3d", 6), ("ConvTranspose2d", 6), ("ConvTranspose2d", 2)])
def test_depthwise_scales_are_those_of_each_channel(name, groups):
    torch.manual_seed(0)
    layer = getattr(lnn, name)(6, 12, 3, groups=groups, weight_quantizer="magnitude_sign", input_quantizer="sign")
    scale = layer.quantized_weight().scale
    assert scale.shape == (12, *[1] * (layer.weight.ndim - 1))
    expected = [np.abs(row.astype(np.float64)).mean().astype(np.float32) for row in rows_by_loop(layer)]
    np.testing.assert_array_equal(scale.flatten().detach().numpy(), expected)
    learned = getattr(lnn, name)(6, 12, 3, groups=groups, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer="sign")
    assert learned.weight_quantizer.step.shape == scale.shape
    learned(torch.randn(2, 6, *[5] * (layer.weight.ndim - 2))).square().sum().backward()
    assert (learned.weight_quantizer.step.grad.abs() > 0).all()


@pytest.mark.parametrize("value", [1, -1])
@pytest.mark.parametrize("training", [True, False])
def test_a_padding_value_is_a_border_of_that_code(value, training):
    torch.manual_seed(0)
    layer = lnn.Conv2d(3, 4, 3, padding=(1, 2), padding_value=value, weight_quantizer="sign", input_quantizer="sign").train(training)
    x = torch.randn(2, 3, 5, 5)
    codes = F.pad(torch.where(x >= 0, 1.0, -1.0), (2, 2, 1, 1), value=value)
    expected = F.conv2d(codes, torch.where(layer.weight >= 0, 1.0, -1.0)) + layer.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    assert f"padding_value={value}" in repr(layer)
    float_weights = lnn.Conv2d(3, 4, 3, padding=(1, 2), padding_value=value, input_quantizer="sign").train(training)
    torch.testing.assert_close(float_weights(x), F.conv2d(codes, float_weights.weight, float_weights.bias))


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"padding_value": 2, "weight_quantizer": "sign", "input_quantizer": "sign"}, "must be 0, 1 or -1"),
        ({"padding_value": 1}, "the input is float"),
        ({"padding_value": 1, "weight_quantizer": "sign"}, "the input is float"),
        ({"padding_value": -1, "weight_quantizer": "sign", "input_quantizer": {"name": "linear", "bits": 2}}, "signed2"),
        ({"padding_value": 1, "weight_quantizer": "sign", "input_quantizer": {"name": "lsq", "bits": 1}}, "undecided"),
        ({"padding_value": 1, "input_quantizer": {"name": "lsq", "bits": 1, "nonnegative": True}}, "unsigned1"),
    ],
)
@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "Conv3d"])
def test_a_padding_value_is_for_inputs_of_minus_and_plus_one_alone(name, settings_, words):
    with pytest.raises(ConfigError, match=words):
        getattr(lnn, name)(2, 2, 3, padding=1, **settings_)


def test_a_padding_value_works_with_every_one_bit_odd_input():
    x = torch.randn(2, 3, 6)
    found = [
        lnn.Conv1d(3, 2, 3, padding=1, padding_value=1, weight_quantizer="sign", input_quantizer=quantizer).input_quantizer(x).codes
        for quantizer in ("sign", {"name": "lsq", "bits": 1, "nonnegative": False}, {"name": "linear", "bits": 1})
    ]
    assert all(torch.equal(codes, found[0]) for codes in found)


@pytest.mark.parametrize("role", ["weight_quantizer", "input_quantizer"])
@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "Conv3d"])
def test_a_quantizer_with_a_border_of_the_input_is_refused(name, role):
    with pytest.raises(ConfigError, match="zeros"):
        getattr(lnn, name)(3, 3, 3, padding=1, padding_mode="circular", **{role: "sign"})


@pytest.mark.parametrize("size", [(8, 7), (11, 7), (9,), (2, 6, 9, 7, 1)])
def test_an_output_size_out_of_reach_is_refused(size):
    layer = lnn.ConvTranspose2d(4, 6, 3, 2, 1, weight_quantizer="sign", input_quantizer="sign")
    with pytest.raises(ShapeError, match=r"\[9, 7\] to \[10, 8\]"):
        layer(torch.randn(2, 4, 5, 4), output_size=size)


@pytest.mark.parametrize("size", [(10, 8), (6, 9, 8), (2, 6, 9, 8)])
def test_a_quantized_transposed_convolution_takes_an_output_size(size):
    x = torch.randn(2, 4, 5, 4)
    layer = lnn.ConvTranspose2d(4, 6, 3, 2, 1, weight_quantizer="sign", input_quantizer="sign")
    if len(size) == 3:
        x = x[0]
    extra = (size[-2] - 9, size[-1] - 7)
    wider = lnn.ConvTranspose2d(4, 6, 3, 2, 1, extra, weight_quantizer="sign", input_quantizer="sign")
    wider.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x, output_size=size), wider(x))


MAKERS = {
    "Conv1d": lambda **q: lnn.Conv1d(4, 6, 3, padding=1, groups=2, **q),
    "Conv2d": lambda **q: lnn.Conv2d(4, 6, 3, padding="same", groups=2, **q),
    "Conv2d padded with a code": lambda **q: lnn.Conv2d(4, 6, 3, padding=1, padding_value=-1, **q | {"input_quantizer": "sign"}),
    "Conv3d": lambda **q: lnn.Conv3d(4, 6, (1, 2, 3), padding=1, **q),
    "ConvTranspose1d": lambda **q: lnn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, **q),
    "ConvTranspose2d": lambda **q: lnn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, **q),
    "ConvTranspose3d": lambda **q: lnn.ConvTranspose3d(4, 6, 2, 2, **q),
}
FOUR = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}


def started(name):
    torch.manual_seed(0)
    layer = MAKERS[name](**FOUR)
    x = torch.randn(3, 4, *[5] * (layer.weight.ndim - 2))
    layer(x)
    return layer, x


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_layer_is_one_graph_and_the_same(name, training):
    layer, x = started(name)
    layer.train(training)
    results = []
    for model in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        v = x.clone().requires_grad_()
        y = model(v)
        y.square().sum().backward()
        results.append([y.detach(), v.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_trains_under_bf16_autocast(name):
    """Four-bit codes and their products with at most 36 inputs are exact in bf16 and float32, so the output is close to float32's."""
    layer, x = started(name)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02 * float(expected.detach().abs().max()))
    y.float().square().mean().backward()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_copies_pickles_and_states_give_the_same_and_live_on_their_own(name):
    layer, x = started(name)
    layer.eval()
    y = layer(x)
    fresh = MAKERS[name](**FOUR)
    fresh(x)
    fresh.eval().load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(twin(x), y)
        twin.weight.neg_()
        assert not torch.equal(twin(x), y)
        assert torch.equal(layer(x), y)


@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_kept_codes_follow_the_weights(name):
    layer, x = started(name)
    layer.eval()
    bias = layer.per_channel(layer.bias)
    y = layer(x) - bias
    assert layer.quantized_weight().codes is layer.quantized_weight().codes
    layer.weight_quantizer.step.mul_(2)
    layer.weight.mul_(-2)
    changed = layer(x) - bias
    torch.testing.assert_close(changed, layer.train()(x) - bias, rtol=1e-5, atol=1e-5)
    assert not torch.equal(changed, y)


class SignOfGradient(GradientQuantizer):
    """Half the sign: coarse enough that a gradient that went past it shows."""

    def forward(self, x):
        return Quantized(x.sign(), torch.tensor(0.5))


@pytest.mark.parametrize("name", MAKERS)
def test_the_gradient_of_the_sums_is_quantized(name):
    layer, x = started(name)
    layer.gradient_quantizer = SignOfGradient()
    codes = layer.pad(torch.randint(0, 2, x.shape) * 2.0 - 1).requires_grad_()
    weight = layer.rows(torch.randn_like(layer.weight)).requires_grad_()
    y = layer._sum(codes, weight)
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, (codes, weight), g)
    expected = torch.autograd.grad(layer.product(codes, weight), (codes, weight), g.sign() * 0.5)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    v = x.clone().requires_grad_()
    layer(v).sum().backward()
    assert v.grad.abs().sum() > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_is_the_same_on_every_device(name, device):
    layer, x = started(name)
    results = []
    for where in ("cpu", device):
        other, v = copy.deepcopy(layer).to(where), x.to(where).requires_grad_()
        y = other(v)
        y.square().sum().backward()
        with torch.no_grad():
            results.append([other.eval()(x.to(where)), y.detach(), v.grad, *(p.grad for p in other.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_an_uneven_border_has_its_odd_pixel_at_the_end(training):
    torch.manual_seed(0)
    layer = lnn.Conv1d(2, 3, 4, padding="same", padding_value=-1, weight_quantizer="sign", input_quantizer="sign").train(training)
    assert layer.border == [(1, 2)]
    x = torch.randn(2, 2, 6)
    codes = F.pad(torch.where(x >= 0, 1.0, -1.0), (1, 2), value=-1)
    expected = F.conv1d(codes, torch.where(layer.weight >= 0, 1.0, -1.0)) + layer.bias.reshape(-1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


class ShiftedSign(Sign):
    """Signs about 0.5: values of -0.5 and 1.5."""

    def forward(self, x):
        return super().forward(x - 0.5)._replace(offset=torch.tensor(0.5))


@pytest.mark.parametrize("training", [True, False])
def test_a_border_of_codes_has_the_offset_of_the_input_too(training):
    torch.manual_seed(0)
    layer = lnn.Conv1d(2, 3, 3, padding=1, padding_value=1, weight_quantizer="sign", input_quantizer=ShiftedSign()).train(training)
    x = torch.randn(2, 2, 6)
    values = F.pad(torch.where(x >= 0.5, 1.5, -0.5), (1, 1), value=1.5)
    torch.testing.assert_close(layer(x), F.conv1d(values, torch.where(layer.weight >= 0, 1.0, -1.0), layer.bias))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"])
def test_an_image_without_a_batch_axis_is_a_batch_of_one_to_every_quantizer(name):
    torch.manual_seed(0)
    four = {"name": "lsq", "bits": 4}
    gradient = {"name": "linear", "bits": 4, "stochastic": False}
    layer = getattr(lnn, name)(4, 6, 3, weight_quantizer=four, input_quantizer=four, gradient_quantizer=gradient)
    x = torch.randn(4, *[5] * int(name[-2]))
    layer(x)
    found = []
    for image in (x, x[None]):
        layer.zero_grad()
        y = layer(image).reshape(layer(x).shape)
        (y * torch.linspace(0.1, 2, y.numel()).reshape(y.shape)).sum().backward()
        found.append([y, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_padding_value_is_a_number():
    with pytest.raises(ConfigError, match="padding_value is True; it must be 0, 1 or -1"):
        lnn.Conv2d(3, 4, 3, padding=1, padding_value=True, input_quantizer="sign")
