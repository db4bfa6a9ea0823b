"""Learned widths: the gradients of step and clipping level, the width that follows from both, its limits, and how it is fixed, saved and refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError


def started(bits=4, **settings):
    """Weights quantized once, so that step and clipping level are parameters of their own."""
    torch.manual_seed(0)
    quantizer, w = Q.LearnedBitsWeights(bits, **settings), torch.randn(6, 50)
    quantizer.attach(w)
    quantizer(w)
    return quantizer, w


def put(quantizer, step, top):
    with torch.no_grad():
        quantizer.log2_step.fill_(np.log2(step))
        quantizer.log2_top.fill_(np.log2(top))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [200, 5000])  # the second is large enough for the native loops
def test_gradients_of_step_and_clipping_level_are_those_of_the_formula(signed, count):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=count).astype(np.float32), rng.normal(size=count)
    step, top = np.float32(0.3), np.float32(1.31)
    leaves = [torch.tensor(value, requires_grad=True) for value in (x, step, top)]
    codes = Q.learned_bits(*leaves, signed=signed)
    (leaves[1] * codes * torch.tensor(g, dtype=torch.float32)).sum().backward()
    v, n = x.astype(np.float64) / step, np.rint(np.float64(top) / step)
    lo = -n if signed else 0.0
    inside, side = (v >= lo) & (v <= n), np.where(v > n, 1.0, -1.0 if signed else 0.0)
    assert codes.tolist() == np.rint(np.clip(v, lo, n)).tolist()
    wanted = (
        g * inside,
        (g * np.where(inside, np.rint(v) - v, side * (n - np.float64(top) / step))).sum(),
        (g * np.where(inside, 0.0, side)).sum(),
    )
    for leaf, gradient in zip(leaves, wanted, strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("levels", "signed", "unsigned"), [(1, 2, 2), (2, 3, 2), (3, 3, 2), (3.4, 3, 2), (3.6, 4, 3), (7, 4, 3), (126.6, 8, 7)]
)
def test_the_width_is_the_least_that_holds_the_largest_code(levels, signed, unsigned):
    quantizer, w = started()
    put(quantizer, 0.25, 0.25 * levels)
    assert quantizer.bits == quantizer.code_type.bits == signed
    assert quantizer(10 * w).codes.max() == round(levels)
    activations = Q.LearnedBits(4, nonnegative=True)
    activations(torch.rand(9))
    put(activations, 0.25, 0.25 * max(levels, 1))
    activations.keep_in_range()
    assert activations.bits == unsigned


def test_values_do_not_jump_where_the_width_changes():
    quantizer, w = started()
    values = []
    for top in (7.49, 7.51):
        put(quantizer, 0.1, 0.1 * top)
        values.append((quantizer.bits, quantizer(w).values()))
    assert [bits for bits, _ in values] == [4, 5]
    assert (values[1][1] - values[0][1]).abs().max() <= 0.1001  # one code of a step of 0.1, at the ends alone


@pytest.mark.parametrize(("step", "top", "wanted"), [(1e-6, 1.0, 6), (5.0, 1.0, 3)])
def test_the_optimizer_cannot_take_the_width_beyond_its_limits(step, top, wanted):
    quantizer, w = started(4, least=3, most=6)
    put(quantizer, step, top)
    assert quantizer.eval().bits == wanted
    quantizer.train()(w)
    assert quantizer.top.item() == pytest.approx(top)
    assert quantizer.bits == wanted


def test_a_width_at_its_least_has_no_price():
    quantizer, _ = started(3, least=3)
    assert not quantizer.real_bits().requires_grad
    put(quantizer, 0.1, 0.1 * 6)
    bits = quantizer.real_bits()
    assert bits.item() == 4
    bits.backward()
    assert quantizer.log2_step.grad.item() == pytest.approx(-6 / 7)  # d log2(2^(t - s) + 1) / ds
    assert quantizer.log2_top.grad.item() == pytest.approx(6 / 7)


def test_fixed_it_is_lsq_of_its_width_with_the_same_range():
    quantizer, w = started()
    put(quantizer, 0.1, 0.51)
    assert quantizer.freeze() == quantizer.freeze() == 4
    step = quantizer.step.detach()
    assert step.item() == pytest.approx(0.5 / 7)
    code = Q.LSQWeights(4).code_type
    for training in (True, False):
        codes = quantizer.train(training)(w).codes
        assert torch.equal(codes, Q.lsq(w, step, code))
    quantizer.train()(w).values().sum().backward()
    assert quantizer.log2_top.grad.item() == 0
    assert not quantizer.real_bits().requires_grad
    quantizer.set_bits(5)
    assert quantizer.bits == 5
    assert not bool(quantizer.started)


def test_a_saved_width_loads_whatever_the_width_to_begin_with():
    for fix in (False, True):
        quantizer, w = started(8)
        put(quantizer, 0.1, 0.3)
        if fix:
            quantizer.freeze()
        fresh = Q.LearnedBitsWeights(5)
        fresh.attach(w)
        fresh.load_state_dict(copy.deepcopy(quantizer.state_dict()))
        assert fresh.bits == 3
        assert fresh.is_learning is not fix
        assert torch.equal(fresh.eval()(w).codes, quantizer.eval()(w).codes)


def test_looking_in_eval_changes_nothing_before_training():
    layer = lnn.Linear(8, 4, weight_quantizer={"name": "learned_bits", "bits": 4})
    before = copy.deepcopy(layer.state_dict())
    y = layer.eval()(torch.ones(1, 8))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    torch.testing.assert_close(layer.train()(torch.ones(1, 8)), y)


def test_calibration_keeps_the_width_and_chooses_the_range():
    torch.manual_seed(0)
    learned = {"name": "learned_bits", "bits": 6}
    net = nn.Sequential(lnn.Linear(8, 4, weight_quantizer=learned, input_quantizer=learned))
    x = torch.randn(64, 8)
    net(x)
    put(net[0].input_quantizer, 0.1, 0.3)
    net(x)
    Q.calibrate(net, 10 * x, method="min-max", weights="min-max")
    assert net[0].input_quantizer.bits == 3
    assert net[0].input_quantizer.top.item() == pytest.approx(10 * x.abs().max().item(), rel=1e-6)
    assert net[0].weight_quantizer.bits == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1}, "2 to 8 bits, not 1"),
        ({"bits": 8.0}, "2 to 8 bits"),
        ({"bits": 4, "least": 1}, "least of quantizer 'learned_bits' has 2 to 8 bits"),
        ({"bits": 4, "least": 5}, "begins with 4 bits and stays between least=5 and most=8"),
        ({"bits": 8, "most": 6}, "between least=2 and most=6"),
    ],
)
def test_widths_out_of_range_are_refused(settings, message):
    for kind in (Q.LearnedBits, Q.LearnedBitsWeights):
        with pytest.raises(ConfigError, match=message):
            kind(**settings)


def test_a_width_that_has_seen_nothing_cannot_be_fixed():
    with pytest.raises(ConfigError, match="has not seen a batch in training"):
        Q.LearnedBits(4).freeze()


def test_a_state_that_is_not_finite_is_named():
    layer = lnn.Linear(8, 4, weight_quantizer={"name": "learned_bits", "bits": 4})
    layer(torch.ones(1, 8))
    put(layer.weight_quantizer, float("nan"), 1.0)
    with pytest.raises(ConfigError, match=r"learned step of a Linear .* is nan"):
        layer.eval()(torch.ones(1, 8))


@pytest.mark.parametrize("fix", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_layer_compiles_whole(mode, fix):
    torch.manual_seed(0)
    learned = {"name": "learned_bits", "bits": 5}
    layer, x = lnn.Linear(40, 6, weight_quantizer=learned, input_quantizer=learned), torch.randn(9, 40)
    layer(x)
    if fix:
        for quantizer in (layer.weight_quantizer, layer.input_quantizer):
            quantizer.freeze()
    getattr(layer, mode)()
    wanted = layer(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), wanted)


def test_an_lstm_learns_its_widths():
    torch.manual_seed(0)
    layer = lnn.LSTM(4, 5, weight_quantizer={"name": "learned_bits", "bits": 4}, input_quantizer={"name": "learned_bits", "bits": 4})
    layer(torch.randn(3, 2, 4))[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
