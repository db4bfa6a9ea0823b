"""Each quantizer against its formula, written again in float64 numpy; and the properties of its codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lobit import quantizers as Q
from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.quantizers import registry

BITS = range(1, 9)
values = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-3, 3, width=32))


def codes_and_gradient(quantizer, x):
    """Codes, and the gradient in x of the sum of the values the codes stand for, weighted 1, 2, 3, .."""
    t = torch.tensor(x, requires_grad=True)
    q = quantizer(t)
    (q.values() * torch.arange(1.0, t.numel() + 1).reshape(t.shape)).sum().backward()
    return q.codes.detach().numpy(), t.grad.numpy(), np.arange(1.0, x.size + 1).reshape(x.shape)


def half_even(v, lo, hi):
    return np.rint(np.clip(v, lo, hi))


@given(values)
def test_sign_is_never_zero_and_its_gradient_is_cut_at_one(x):
    codes, gradient, g = codes_and_gradient(Q.Sign(), x)
    np.testing.assert_array_equal(codes, np.where(x >= 0, 1, -1))
    np.testing.assert_array_equal(gradient, g * (np.abs(x) <= 1))


@given(values)
def test_sign_of_weights_passes_the_gradient_unmasked(x):
    codes, gradient, g = codes_and_gradient(Q.SignWeights(), x)
    np.testing.assert_array_equal(codes, np.where(x >= 0, 1, -1))
    np.testing.assert_array_equal(gradient, g)


@pytest.mark.parametrize("bits", range(2, 9))
@given(x=values)
def test_linear_quant(bits, x):
    codes, gradient, g = codes_and_gradient(Q.LinearQuant(bits), x)
    half = 2 ** (bits - 1)
    v = x.astype(np.float64) * half
    np.testing.assert_array_equal(codes, half_even(v, -half, half - 1))
    np.testing.assert_allclose(gradient, g * ((v >= -half) & (v <= half - 1)), rtol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@given(x=values)
def test_dorefa_activations(bits, x):
    codes, gradient, g = codes_and_gradient(Q.DoReFaActivations(bits), x)
    n = 2**bits - 1
    v = (x * np.float32(n)).astype(np.float64)
    np.testing.assert_array_equal(codes, half_even(v, 0, n))
    np.testing.assert_allclose(gradient, g * ((v >= 0) & (v <= n)), rtol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_dorefa_weights(bits):
    w = np.random.default_rng(bits).normal(size=(5, 7)).astype(np.float32)
    quantizer = Q.DoReFaWeights(bits).eval()
    q = quantizer(torch.tensor(w))
    n = 2**bits - 1
    t = np.tanh(w.astype(np.float64))
    np.testing.assert_array_equal(q.codes.numpy(), 2 * np.rint(n * (t / (2 * np.abs(t).max()) + 0.5)) - n)
    np.testing.assert_allclose(float(q.scale), 1 / n, rtol=1e-7)


def test_dorefa_weight_gradient_is_the_formulas_with_rounding_left_out():
    w = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    t = torch.tanh(w)
    smooth = 2 * (t / (2 * t.abs().max()) + 0.5) - 1
    g = torch.arange(24.0, dtype=torch.float64).reshape(4, 6)
    (expected,) = torch.autograd.grad((smooth * g).sum(), w)
    w32 = w.detach().float().requires_grad_()
    (Q.DoReFaWeights(3)(w32).values() * g.float()).sum().backward()
    np.testing.assert_allclose(w32.grad.numpy(), expected.numpy(), rtol=2e-4, atol=1e-4)


def test_magnitude_sign_equals_a_loop_over_channels():
    w = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    q = Q.MagnitudeSign()(w)
    for channel in range(6):
        row = w[channel].detach().double().numpy()
        assert float(q.scale[channel]) == np.float32(np.abs(row).mean())
        np.testing.assert_array_equal(q.codes[channel].detach().numpy(), np.where(row >= 0, 1, -1))
    q.values().sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.ones_like(w.detach().numpy()), rtol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("nonnegative", [True, False])
def test_lsq_codes_and_both_gradients(bits, nonnegative):
    rng = np.random.default_rng(bits)
    x = rng.normal(size=(4, 50)).astype(np.float32)
    x = np.abs(x) if nonnegative else x
    quantizer = Q.LSQ(bits)
    quantizer(torch.tensor(x))  # decides the sign and the step
    assert quantizer.nonnegative is nonnegative
    code = quantizer.code_type
    step = np.float64(quantizer.step.item())
    assert step == pytest.approx(2 * np.abs(x).mean() / np.sqrt(code.hi), rel=1e-6)
    codes, gradient, g = codes_and_gradient(quantizer, x)
    v = (x / np.float32(step)).astype(np.float64)
    inside = (v >= code.lo) & (v <= code.hi)
    np.testing.assert_array_equal(codes, half_even(v, code.lo, code.hi))
    np.testing.assert_allclose(gradient, g * inside, rtol=1e-5)
    formula = np.where(inside, np.rint(v) - v, np.clip(v, code.lo, code.hi))  # LSQ, equation 3
    expected = (g * formula).sum() / np.sqrt(x[0].size * code.hi)
    np.testing.assert_allclose(quantizer.step.grad.item(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", range(2, 9))
def test_lsq_weights_have_a_step_for_each_channel_and_equal_a_loop(bits):
    w = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(bits)) * torch.linspace(0.1, 5, 5).reshape(5, 1, 1, 1)
    quantizer = Q.LSQWeights(bits)
    quantizer.attach(w)
    q = quantizer(w)
    assert q.scale.shape == (5, 1, 1, 1)
    for channel in range(5):
        row, step = w[channel].numpy(), np.float32(q.scale[channel].item())
        assert step == pytest.approx(2 * np.abs(row).mean() / np.sqrt(quantizer.code_type.hi), rel=1e-6)
        np.testing.assert_array_equal(
            q.codes[channel].detach().numpy(), half_even(row / step, quantizer.code_type.lo, quantizer.code_type.hi)
        )


def test_lsq_of_one_bit_is_a_bit_times_the_step_or_the_sign():
    positive = Q.LSQ(1)
    positive(torch.tensor([0.0, 1.0, 2.0]))
    assert str(positive.code_type) == "unsigned1"
    signed = Q.LSQ(1)
    signed(torch.tensor([-0.5, 1.0]))
    assert str(signed.code_type) == "odd1"
    assert signed.steps() == []


def test_use_before_calibration_is_refused_by_the_layers_name():
    quantizer = Q.LSQ(4).eval()
    quantizer.owner = "layer 'conv1'"
    with pytest.raises(ConfigError, match=r"conv1.*calibration"):
        quantizer(torch.zeros(3))
    with pytest.raises(ConfigError, match="conv1"):
        _ = quantizer.code_type


def test_a_step_that_the_optimizer_made_negative_recovers():
    quantizer = Q.LSQ(4)
    x = torch.rand(64)
    quantizer(x)
    with torch.no_grad():
        quantizer.step.fill_(-1.0)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        (quantizer(x).values() - x).square().sum().backward()
        optimizer.step()
    assert quantizer.step.item() > 0.01


@pytest.mark.parametrize("name", Q.names("activations"))
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@settings(max_examples=20)
@given(x=values)
def test_activation_codes_are_levels_monotone_and_equal_their_exported_steps(name, bits, x):
    if "sign" in name and bits > 1:
        with pytest.raises(ConfigError, match="1 bit"):
            Q.get({"name": name, "bits": bits}, "activations")
        return
    quantizer = Q.get({"name": name, "bits": bits}, "activations")
    quantizer(torch.tensor([-1.0, 0.3, 1.7]))  # calibrates what needs it
    quantizer.eval()
    x = np.sort(x)
    codes = quantizer(torch.tensor(x)).codes.detach().numpy()
    assert set(codes.astype(int)) <= set(quantizer.code_type.levels)
    assert (np.diff(codes) >= 0).all()
    v = x
    for op, operand in quantizer.steps():
        f = {"div": np.divide, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "add": np.add, "sub": np.subtract}[op]
        v = f(v, operand.numpy())
        assert v.dtype == np.float32
    code = quantizer.code_type
    zero = quantizer.zero
    expected = np.where(v >= 0, 1, -1) if str(code) == "odd1" else np.clip(np.rint(v), code.lo - zero, code.hi - zero) + zero
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(quantizer(torch.tensor(x)).codes.detach().numpy(), codes)  # eval is deterministic


@pytest.mark.parametrize("bits", range(2, 9))
def test_linear_quant_of_its_own_values_changes_nothing(bits):
    q = Q.LinearQuant(bits)(torch.linspace(-1.2, 1.2, 501))
    np.testing.assert_array_equal(Q.LinearQuant(bits)(q.values()).codes.numpy(), q.codes.numpy())


def test_stochastic_sign_has_the_mean_of_the_clipped_input():
    torch.manual_seed(0)
    x = torch.linspace(-1.5, 1.5, 13)
    n = 40_000
    mean = Q.stochastic_sign(x.expand(n, 13)).mean(0)
    wanted = x.clamp(-1, 1)
    spread = 4.5 * torch.sqrt((1 - wanted**2) / n) + 1e-6  # 4.5 standard deviations
    assert ((mean - wanted).abs() <= spread).all()
    np.testing.assert_array_equal(Q.StochasticSign().eval()(x).codes.numpy(), np.where(x.numpy() >= 0, 1, -1))


@pytest.mark.parametrize(
    ("identifier", "message"), [("lsqq", "lsq"), ({"bits": 2}, "name"), (7, "no quantizer"), ({"name": "lsq", "bits": 9}, "8 bits")]
)
def test_a_wrong_quantizer_is_refused_with_what_is_allowed(identifier, message):
    with pytest.raises(ConfigError, match=message):
        Q.get(identifier, "activations")


def test_a_quantizer_of_one_width_needs_no_bits_and_refuses_others(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @Q.register("only_ternary")
    class OnlyTernary(Q.WeightQuantizer):
        code_type = CodeType("ternary", 2)

    assert isinstance(Q.get("only_ternary", "weights"), OnlyTernary)
    assert isinstance(Q.get("only_ternary", "weights", 2), OnlyTernary)
    with pytest.raises(ConfigError, match="has 2 bits, not 4"):
        Q.get("only_ternary", "weights", 4)
    with pytest.raises(ConfigError, match="does not take"):
        Q.get({"name": "only_ternary", "bits": 2}, "weights")


def test_dorefa_weight_codes_of_eval_are_those_of_float64_and_float32_would_miss_some():
    w = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
    t = np.tanh(w.astype(np.float64))
    expected = 2 * np.rint(255 * (t / (2 * np.abs(t).max()) + 0.5)) - 255
    quantizer = Q.DoReFaWeights(8)
    assert (quantizer(torch.tensor(w)).codes.numpy() != expected).any()
    np.testing.assert_array_equal(quantizer.eval()(torch.tensor(w)).codes.numpy(), expected)
