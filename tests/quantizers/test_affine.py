"""Affine quantizers: ranges that follow weights, ranges that calibration fixed, zero points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lobit
from lobit import data
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError


def centred(bits, **settings):
    return {"name": "affine", "bits": bits, "symmetric": False, **settings}


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("per_channel", [True, False])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), low=st.floats(-2, 1))
def test_calibrated_weights_follow_the_formula_and_their_gradient_stops_outside(bits, per_channel, seed, low):
    rng = np.random.default_rng(seed)
    w = rng.uniform(low, low + 2, (4, 9)).astype(np.float32)
    quantizer = Q.AffineWeights(bits, per_channel, symmetric=False)
    quantizer.attach(torch.tensor(w))
    quantizer.take(Q.Sample.of_rows(torch.tensor(w)), Q.MeanSquaredError())
    w = (w * rng.choice([1, 1, 3], w.shape)).astype(np.float32)  # some now lie outside
    t = torch.tensor(w, requires_grad=True)
    q = quantizer(t)
    scale, zero = quantizer.scale.numpy(), quantizer.zero_point.numpy()
    assert scale.shape == ((4, 1) if per_channel else ())
    assert ((zero >= 0) & (zero < 2**bits)).all()
    v = w / scale
    hi = 2**bits - 1 - zero
    np.testing.assert_array_equal(q.codes.detach().numpy(), np.clip(np.rint(v), -zero, hi))
    assert np.abs(q.codes.detach().numpy()).max() <= quantizer.code_type.max_abs
    q.values().sum().backward()
    inside, edge = (v >= -zero) & (v <= hi), (np.abs(v + zero) < 1e-5) | (np.abs(v - hi) < 1e-5)
    np.testing.assert_allclose(t.grad.numpy()[~edge], inside[~edge], rtol=1e-5)


def test_a_range_follows_the_weights_until_calibration_fixes_it():
    layer = lnn.Linear(8, 3, weight_quantizer={"name": "affine", "bits": 4}, input_quantizer="sign").eval()
    with torch.no_grad():
        first = layer.quantized_weight().scale.clone()
        layer.weight.mul_(2)
        torch.testing.assert_close(layer.quantized_weight().scale, 2 * first)
    lobit.calibrate(nn.Sequential(layer), torch.randn(4, 8))
    with torch.no_grad():
        fixed = layer.quantized_weight().scale.clone()
        layer.weight.mul_(2)
        torch.testing.assert_close(layer.quantized_weight().scale, fixed)
        layer.weight_quantizer.reset()
        layer.train().eval()
        torch.testing.assert_close(layer.quantized_weight().scale, 4 * first)


def test_covering_weights_give_the_whole_gradient_to_their_ends():
    for seed in range(20):
        w = torch.randn(5, 40, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        for quantizer in (Q.AffineWeights(4), Q.AffineWeights(4, symmetric=False), Q.AffineWeights(3, per_channel=False)):
            quantizer.attach(w)
            (gradient,) = torch.autograd.grad(quantizer(w).values().sum(), w)
            torch.testing.assert_close(gradient, torch.ones_like(w))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_zero_is_a_code_and_stands_for_real_zero(bits):
    quantizer = Q.AffineActivations(bits)
    quantizer(torch.randn(100) - 0.5)
    assert 0 <= quantizer.zero <= quantizer.code_type.hi
    q = quantizer(torch.zeros(3))
    assert (q.codes == quantizer.zero).all()
    assert (q.values() == 0).all()


@pytest.mark.parametrize(("low", "high", "zero"), [(0.0, 3.0, 0), (-3.0, 0.0, 15), (-1.0, 2.0, 5)])
def test_the_zero_point_stands_where_the_range_has_it(low, high, zero):
    quantizer = Q.AffineActivations(4)
    quantizer.settle(Q.Sample.of_rows(torch.tensor([[low, high]])), Q.MinMax())
    assert quantizer.zero == zero
    assert quantizer.scale.item() == pytest.approx((high - low) / 15)


def test_symmetric_activations_take_their_sign_from_data():
    signs = {}
    for x in (torch.rand(50), torch.randn(50)):
        quantizer = Q.AffineActivations(4, symmetric=True)
        with pytest.raises(ConfigError, match="undecided"):
            _ = quantizer.code_type
        quantizer(x)
        assert quantizer.zero == 0
        signs[str(quantizer.code_type)] = quantizer
    assert set(signs) == {"unsigned4", "signed4"}


def test_the_bound_of_sums_counts_the_zero_point():
    layer = lnn.Linear(10, 2, weight_quantizer=centred(4), input_quantizer={"name": "affine", "bits": 4})
    layer.input_quantizer.settle(Q.Sample.of_rows(torch.tensor([[-1.0, 2.0]])), Q.MinMax())
    assert layer.input_quantizer.zero == 5
    assert layer.accumulator_bound == 10 * 10 * 16
    x, weight = 100 * torch.randn(200, 10), layer.weight
    sums = layer.product(layer.input_quantizer(x).centred(), layer.weight_quantizer(weight).codes)
    assert sums.abs().max() <= layer.accumulator_bound


def test_weights_of_one_bit_with_a_zero_point_learn_from_a_calibrated_range():
    held = data.load_data("digits")
    x, y = (torch.tensor(part) for part in (held.scale(held.train_images, -1, 1), held.train_labels))
    torch.manual_seed(0)
    quantizers = {"weight_quantizer": centred(1), "input_quantizer": {"name": "affine", "bits": 4}}
    net = nn.Sequential(
        nn.Flatten(),
        lnn.Linear(64, 64, **quantizers),
        lnn.BatchNorm1d(64),
        nn.ReLU(),
        lnn.Linear(64, 10, **quantizers),
        lnn.BatchNorm1d(10),
    )
    lobit.calibrate(net, x[:200])
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    test_x = torch.tensor(held.scale(held.test_images, -1, 1))
    assert (net.eval()(test_x).argmax(1) == torch.tensor(held.test_labels)).double().mean() > 0.6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Q.AffineWeights(8, symmetric=False), "1 to 7 bits"),
        (lambda: Q.AffineWeights(1), "2 to 8 bits"),
        (lambda: Q.AffineActivations(1, signed=True), "2 to 8 bits"),
        (lambda: Q.AffineActivations(1, symmetric=True), "signed=False"),
        (lambda: Q.AffineActivations(4, signed="yes"), "True, False or None"),
    ],
)
def test_widths_and_settings_that_do_not_exist_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_one_quantizer_cannot_serve_two_layers():
    quantizer = Q.AffineWeights(4)
    lnn.Linear(3, 2, weight_quantizer=quantizer)
    with pytest.raises(ConfigError, match="of its own"):
        lnn.Linear(3, 5, weight_quantizer=quantizer)


def test_a_state_of_another_width_is_refused():
    quantizer = Q.AffineActivations(4)
    quantizer(torch.randn(10))
    with pytest.raises(RuntimeError, match="of 4 bits, this quantizer has 3"):
        nn.Sequential(Q.AffineActivations(3)).load_state_dict(nn.Sequential(quantizer).state_dict())


def test_a_state_of_one_grid_is_not_loaded_into_the_other():
    make = lambda symmetric: lnn.Linear(10, 6, weight_quantizer={"name": "affine", "bits": 4, "symmetric": symmetric})  # noqa: E731
    with pytest.raises(RuntimeError, match="Unexpected key.*weight_quantizer.zero_point"):
        make(True).load_state_dict(make(False).state_dict())
    with pytest.raises(RuntimeError, match="Missing key.*weight_quantizer.zero_point"):
        make(False).load_state_dict(make(True).state_dict())
