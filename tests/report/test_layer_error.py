"""The error of a layer: its formula against numpy in float64, its limits, and what a layer in float does to the answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.errors import ShapeError
from lobit.report.layer_error import Gain, layer_errors
from lobit.report.moments import Moments


def numpy_unexplained(y, q):
    """``min over a, b of mean (y - a q - b)^2 / var y`` by least squares, one channel."""
    design = np.stack([q, np.ones_like(q)], axis=1)
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    return ((y - design @ fit) ** 2).mean() / y.var()


def gathered(y, q, sizes):
    moments = Moments(len(y))
    for left, right in zip(torch.split(torch.from_numpy(y), sizes, 1), torch.split(torch.from_numpy(q), sizes, 1), strict=True):
        moments.add(left, right)
    return moments


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.floats(0.1, 10), st.integers(1, 60), st.sampled_from([0.0, 1.0, 1e4]))
def test_the_share_is_that_of_a_line_fitted_by_least_squares(seed, slope, noise, size, mean):
    rng = np.random.default_rng(seed)
    y = rng.normal(mean, 1.0, (3, 60))
    q = slope * y + noise * rng.normal(size=y.shape)
    found = gathered(y, q, size)
    for channel in range(3):
        assert float(found.unexplained[channel]) == pytest.approx(numpy_unexplained(y[channel], q[channel]), abs=1e-7)
        assert float(found.var_y[channel]) == pytest.approx(y[channel].var(), rel=1e-9)
        assert float(found.mean_q[channel]) == pytest.approx(q[channel].mean(), rel=1e-9, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.sampled_from([-1e3, -0.01, 0.01, 1e3]), st.floats(-100, 100))
def test_scale_and_offset_are_no_error(seed, scale, offset):
    y = np.random.default_rng(seed).normal(size=(2, 50))
    assert gathered(y, scale * y + offset, 50).unexplained.abs().max() < 1e-9


def test_independent_outputs_are_wholly_unexplained():
    rng = np.random.default_rng(7)
    share = gathered(rng.normal(size=(8, 20_000)), rng.normal(size=(8, 20_000)), 999).unexplained
    assert share.min() > 1 - 16 / 20_000  # r^2 of independent normals is about 1 / n times a chi-squared of one degree
    assert share.max() <= 1


def test_a_channel_that_says_nothing_is_all_error_and_one_with_nothing_to_say_is_none():
    y = np.random.default_rng(0).normal(size=(2, 50))
    y[1] = 3.25
    found = gathered(y, np.ones_like(y), 7)
    assert found.varies.tolist() == [True, False]
    assert found.unexplained.tolist() == [1.0, 0.0]


def quantized_net(conv=True):
    """A net with one quantized layer behind a float one, calibrated on the input that is returned with it."""
    torch.manual_seed(1)
    if conv:
        layer = lnn.Conv2d(
            3, 5, 3, stride=2, padding=1, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2}
        )
        net, x = nn.Sequential(layer, lnn.BatchNorm2d(5), nn.Flatten()), torch.randn(40, 3, 7, 7)
    else:
        layer = lnn.Linear(12, 12, weight_quantizer="sign", input_quantizer="sign")
        net, x = nn.Sequential(layer, lnn.BatchNorm1d(12)), torch.randn(40, 12)
    net(x)
    return net.eval(), layer, x


@pytest.mark.parametrize("conv", [True, False])
def test_each_side_is_measured_as_numpy_would(conv):
    net, layer, x = quantized_net(conv)
    (row,) = layer_errors(net, x, batch_size=17)
    w = layer.weight.detach()
    wq = layer.quantized_weight()
    weight = (wq.scale * wq.codes).detach()
    codes = layer.input_quantizer(x)
    read = (codes.scale * codes.codes).detach()
    apply = (lambda a, b: nn.functional.conv2d(a, b, stride=2, padding=1)) if conv else nn.functional.linear

    def share(a, b):
        y, q = (apply(left.double(), right.double()).numpy() for left, right in ((x, w), (a, b)))
        return [numpy_unexplained(np.take(y, c, 1).ravel(), np.take(q, c, 1).ravel()) for c in range(y.shape[1])]

    assert row.weights == pytest.approx(np.mean(share(x, weight)), abs=1e-6)
    assert row.input == pytest.approx(np.mean(share(read, w)), abs=1e-6)
    assert row.both == pytest.approx(np.mean(share(read, weight)), abs=1e-6)
    assert row.worst == pytest.approx(np.max(share(read, weight)), abs=1e-6)
    assert row.channels == len(w)
    assert row.silent == 0
    assert row.gain is None
    assert min(row.weights, row.input) > 0.01


def test_weights_and_inputs_that_are_codes_already_have_no_error():
    torch.manual_seed(0)
    layer = lnn.Linear(16, 4, weight_quantizer="sign", input_quantizer="sign")
    with torch.no_grad():
        layer.weight.copy_(layer.weight.sign())
    (row,) = layer_errors(nn.Sequential(layer), torch.randn(50, 16).sign())
    assert max(row.weights, row.input, row.both, row.worst) < 1e-12


def test_a_side_without_quantizer_has_no_error():
    torch.manual_seed(0)
    layer = lnn.Linear(16, 4, weight_quantizer="sign")
    (row,) = layer_errors(nn.Sequential(layer), torch.randn(50, 16))
    assert row.input < 1e-12
    assert row.weights == pytest.approx(row.both, abs=1e-6)
    assert row.weights > 0.05


def test_errors_fall_with_every_bit():
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(200, 32, generator=rng)
    found = []
    for bits in (1, 2, 3, 4, 6, 8):
        torch.manual_seed(2)
        net = nn.Sequential(
            lnn.Linear(32, 16, weight_quantizer={"name": "lsq", "bits": bits}, input_quantizer={"name": "lsq", "bits": bits})
        )
        net(x)
        found.append(layer_errors(net, x)[0].both)
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.2
    assert found[-1] < found[0] / 20


def test_the_result_does_not_depend_on_the_batch_and_the_model_stays_as_it_was():
    net, layer, x = quantized_net()
    net.train()
    net[1].eval()  # as one who freezes statistics
    state = {name: value.clone() for name, value in net.state_dict().items()}
    whole, pieces = layer_errors(net, x, batch_size=1000), layer_errors(net, x, batch_size=1)
    assert whole[0].both == pytest.approx(pieces[0].both, rel=1e-6)  # a float product rounds by the batch
    assert [module.training for module in net] == [True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not layer._forward_hooks


def test_a_layer_in_float_mends_what_its_quantization_broke():
    """Labels are what the float layer says; so with it in float every answer is right, and it mends just those that were wrong."""
    net, layer, x = quantized_net(conv=False)
    with torch.no_grad():
        y = nn.functional.linear(x, layer.weight)
        q = layer(x) - layer.bias
        matched = (y - y.mean(0)) / y.std(0, correction=0) * q.std(0, correction=0) + q.mean(0) + layer.bias
        labels = net[1](matched).argmax(1)
        wrong = int((net(x).argmax(1) != labels).sum())
    (row,) = layer_errors(net, x, labels, batch_size=11)
    assert wrong > 0
    assert (row.gain.mended, row.gain.broken, row.gain.samples) == (wrong, 0, len(x))
    assert row.gain.accuracy == wrong / len(x)


def test_answers_that_the_net_gets_right_by_its_quantization_count_as_broken():
    net, _, x = quantized_net(conv=False)
    (row,) = layer_errors(net, x, net(x).argmax(1))
    assert row.gain.mended == 0
    assert row.gain.broken > 0
    assert row.gain.accuracy < 0


def test_chance_is_the_sign_test():
    assert Gain(0, 0, 10).chance == 1.0
    assert Gain(5, 5, 100).chance == 1.0
    assert Gain(6, 0, 100).chance == 2 / 2**6
    assert Gain(2, 8, 100).chance == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10)
    assert 0 <= Gain(3000, 100, 10_000).chance < 1e-300


def test_zoo_nets_are_measured_layer_by_layer_and_float_ones_have_nothing_to_measure():
    torch.manual_seed(0)
    x = torch.rand(30, 1, 8, 8)
    model = lobit.models.create("digits-convnet", bits="W2A2", width=4)
    model(x)
    rows = layer_errors(model, x, torch.arange(30) % 10)
    assert [row.name for row in rows] == ["0", "3", "8", "11"]
    assert all(0 <= row.both <= row.worst <= 1 for row in rows)
    assert rows[1].both > 10 * rows[0].both  # 2 bits against 8
    assert layer_errors(lobit.models.create("digits-convnet", width=4), x) == ()


def test_too_few_samples_and_labels_of_another_number_are_refused():
    net, _, x = quantized_net()
    with pytest.raises(ShapeError, match="at least two"):
        layer_errors(net, x[:1])
    with pytest.raises(ShapeError, match="40 samples need"):
        layer_errors(net, x, torch.zeros(3, dtype=torch.int64))


def test_every_kind_of_convolution_has_an_error_and_an_embedding_has_none():
    """Transposed weights lie input channels first, and a border of codes is no padding of the product."""
    four = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}
    torch.manual_seed(0)
    net = nn.Sequential(
        lnn.ConvTranspose2d(3, 4, 2, 2, groups=1, **four),
        lnn.Conv2d(4, 6, 3, padding=1, padding_value=1, weight_quantizer="sign", input_quantizer="sign"),
        nn.Flatten(2),
        lnn.Conv1d(6, 2, 3, padding=1, **four),
    )
    x = torch.randn(8, 3, 4, 4)
    net(x)
    rows = layer_errors(net, x)
    assert [(row.name, row.channels) for row in rows] == [("0", 4), ("1", 6), ("3", 2)]
    assert all(0 <= row.both <= 1 for row in rows)
    assert rows[0].both < rows[1].both  # 4 bits against one
    table = nn.Sequential(lnn.Embedding(5, 4, weight_quantizer="sign"), lnn.Linear(4, 2, **four))
    index = torch.arange(5)
    table(index)
    assert [row.name for row in layer_errors(table, index)] == ["1"]


class Enlarging(nn.Module):
    """A transposed convolution that is asked for a size, and is called by keyword or not."""

    def __init__(self, kind, size, named):
        super().__init__()
        lsq = {"name": "lsq", "bits": 2}
        self.up = kind(4, 6, 3, stride=3, groups=2, weight_quantizer=lsq, input_quantizer=lsq)
        self.size, self.named = size, named

    def forward(self, x):
        return self.up(input=x, output_size=self.size) if self.named else self.up(x, self.size)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (lnn.ConvTranspose1d, [None, [17], [16]]),
        (lnn.ConvTranspose2d, [None, [15, 17], [16, 16]]),
        (lnn.ConvTranspose3d, [[16, 15, 17]]),
    ],
)
def test_a_transposed_convolution_is_measured_at_the_size_that_it_is_asked_for(kind, sizes, named):
    torch.manual_seed(0)
    axes = len(kind(1, 1, 1).kernel_size)
    x, labels = torch.randn(6, 4, *[5] * axes), torch.arange(6)
    for size in sizes:
        net = Enlarging(kind, size, named)
        net(x)
        [row] = layer_errors(net, x, labels)
        plain = getattr(nn, kind.__name__)(4, 6, 3, stride=3, groups=2)
        with torch.no_grad():
            plain.weight.copy_(net.up.weight)
            plain.bias.copy_(net.up.bias)
            y, q = (part(x, size).movedim(1, 0).flatten(1).double().numpy() for part in (plain, net.eval().up))
        assert row.channels == 6
        assert row.both == pytest.approx(np.mean([numpy_unexplained(y[c], q[c]) for c in range(6)]), abs=1e-6)
        assert row.gain.samples == 6
