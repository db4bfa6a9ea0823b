"""What the table of quantizers does not cover: learned steps' own gradients and starts, refusals, precision; the rows are in `oracles/`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lobit import quantizers as Q
from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.quantizers import registry


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_step_of_lsq_starts_from_the_mean_magnitude_and_has_the_gradient_of_equation_3(bits, nonnegative):
    rng = np.random.default_rng(bits)
    x, g = rng.normal(size=(4, 50)).astype(np.float32), rng.normal(size=(4, 50)).astype(np.float32)
    x = np.abs(x) if nonnegative else x
    quantizer = Q.LSQ(bits)
    quantizer(torch.tensor(x))  # decides the sign and the step
    assert quantizer.nonnegative is nonnegative
    code = quantizer.code_type
    step = np.float64(quantizer.step.item())
    assert step == pytest.approx(2 * np.abs(x).mean() / np.sqrt(code.hi), rel=1e-6)
    (quantizer(torch.tensor(x)).values() * torch.tensor(g)).sum().backward()
    v = (x / np.float32(step)).astype(np.float64)
    formula = np.where((v >= code.lo) & (v <= code.hi), np.rint(v) - v, np.clip(v, code.lo, code.hi))
    expected = (g * formula).sum() / np.sqrt(x[0].size * code.hi)
    np.testing.assert_allclose(quantizer.step.grad.item(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_steps_of_lsq_weights_start_from_each_channels_mean_magnitude(bits):
    w = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(bits)) * torch.linspace(0.1, 5, 5).reshape(5, 1, 1, 1)
    quantizer = Q.LSQWeights(bits)
    quantizer.attach(w)
    scale = quantizer(w).scale
    assert scale.shape == (5, 1, 1, 1)
    mean = np.abs(w.double().numpy()).mean((1, 2, 3))
    np.testing.assert_allclose(
        scale.detach().flatten().numpy(), mean if bits == 1 else 2 * mean / np.sqrt(quantizer.code_type.hi), rtol=1e-6
    )


@pytest.mark.parametrize(("name", "role"), [("sign", "activations"), ("stochastic_sign", "activations"), ("magnitude_sign", "weights")])
def test_a_sign_has_one_bit_and_no_other_width(name, role):
    assert Q.get(name, role, 1).code_type.bits == 1
    with pytest.raises(ConfigError, match="has 1 bit, not 2"):
        Q.get(name, role, 2)


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
