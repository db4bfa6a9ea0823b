"""The option ``power_of_two``: which scale it makes, its gradient, and what stands in the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export
from lobit.capture.capture import capture
from lobit.runtime import load

POWER = {"power_of_two": True}
ACTIVATIONS = ["lsq", "lsq_plus", "pact", "affine"]
WEIGHTS = ["lsq", "affine"]


def is_power(values):
    return (np.frexp(np.abs(np.asarray(values)))[0] == 0.5).all()


def net(weights, activations, bits):
    torch.manual_seed(0)
    settings = {
        "weight_quantizer": {"name": weights, "bits": bits, **POWER},
        "input_quantizer": {"name": activations, "bits": bits, **POWER},
    }
    return nn.Sequential(lnn.Linear(20, 12, **settings), lnn.BatchNorm1d(12), nn.ReLU(), lnn.Linear(12, 5, **settings))


def train(model, x, steps=6):
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x[:, :5]).square().mean().backward()
        optimizer.step()
        lobit.optim.clip_latent_weights(model)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("bits", [2, 5])
def test_scales_in_the_file_are_powers_of_two_exactly(weights, activations, bits, calibrated, tmp_path):
    model, x = net(weights, activations, bits), torch.rand(64, 20, generator=torch.Generator().manual_seed(1)) * 3 - 0.7
    lobit.calibrate(model, x) if calibrated else train(model, x)
    export(model.eval(), x, tmp_path / "net.lobit", strict=True)
    assert np.array_equal(load(tmp_path / "net.lobit")(x.numpy()), model(x).detach().numpy())
    graph = capture(model, (x,)).graph
    found = 0
    for node in graph.nodes:
        for role, name in node.constants.items():
            if role == "scale":
                assert is_power(graph.constants[name].data)
                found += 1
    assert found  # the last layer's; those before it are folded into chains or thresholds
    for layer in (model[0], model[3]):
        assert is_power(layer.quantized_weight().scale.detach())
        (step,) = [operand for op, operand in layer.input_quantizer.steps() if op == "div"]
        assert is_power(step)


@pytest.mark.parametrize(
    ("step", "power"), [(0.7, 0.5), (0.7071, 0.5), (0.7072, 1.0), (0.72, 1.0), (1.41, 1.0), (1.42, 2.0), (2.0**-20, 2.0**-20)]
)
def test_the_nearest_is_so_on_a_logarithmic_axis_and_the_gradient_passes_straight_through(step, power):
    scale = torch.tensor(step, requires_grad=True)
    found = Q.power_of_two(scale)
    assert found.item() == power
    (3 * found).backward()
    assert scale.grad.item() == 3.0


@pytest.mark.parametrize("make", [lambda: Q.LSQ(3, False, **POWER), lambda: Q.LSQPlus(3, **POWER), lambda: Q.PACT(3, 1.3, **POWER)])
def test_what_is_learned_moves_by_the_gradient_at_the_power(make):
    """The learned number itself is free; two that have one power have one gradient."""
    found = []
    for factor in (0.9, 1.0, 1.1):
        torch.manual_seed(0)
        x, quantizer = torch.randn(100), make()
        quantizer(x)
        learned = next(quantizer.parameters())
        n = quantizer.code_type.hi if isinstance(quantizer, Q.PACT) else 1
        with torch.no_grad():
            learned.copy_(0.25 * n * factor)
        q = quantizer(x)
        assert q.scale.item() == 0.25
        q.values().square().sum().backward()
        found.append(learned.grad.item())
    assert found[0] == found[1] == found[2] != 0


def test_affine_weights_that_their_range_follows_are_covered():
    w = torch.randn(6, 50)
    for symmetric in (True, False):
        quantizer = Q.AffineWeights(5, symmetric=symmetric, **POWER)
        quantizer.attach(w)
        q = quantizer(w)
        assert ((q.values() - w).abs() <= q.scale / 2 * (1 + 1e-6)).all()
        plain = Q.AffineWeights(5, symmetric=symmetric)
        plain.attach(w)
        assert (q.scale < 2 * plain(w).scale).all()


def test_a_calibrated_zero_point_stays_and_one_sided_inputs_lose_no_code():
    x = torch.rand(1000) * 3
    quantizer = Q.AffineActivations(4, **POWER)
    quantizer(x)
    assert quantizer.zero == 0
    assert quantizer(x).codes.unique().numel() >= 12


def test_a_range_far_from_zero_keeps_its_middle():
    fit = Q.Fit(torch.tensor([0.07]).double(), torch.zeros(1), torch.tensor([5.0]).double())
    moved = Q.ranges.with_power(fit, Q.Grid(0, 15, offset=True))
    assert moved.scale.item() == 0.0625
    assert moved.offset.item() + 7.5 * moved.scale.item() == pytest.approx(5.0 + 7.5 * 0.07)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsqs_first_step_leaves_codes_that_are_not_all_zero(bits):
    """LSQ's own first step of values near -1 and 1, rounded up, would be above them all."""
    quantizer = Q.LSQ(bits, **POWER)
    assert quantizer(torch.tensor([-0.9, -0.8, 0.8, 0.95])).codes.abs().min() > 0


def test_it_is_an_option_of_policies_too():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    lobit.quantize_(
        model, {"bits": "W4A4", "weights": {"name": "lsq", **POWER}, "activations": {"name": "pact", **POWER}}, first=None, last=None
    )
    model(torch.randn(4, 8))
    assert is_power(model[0].quantized_weight().scale.detach())
    with pytest.raises(lobit.errors.ConfigError, match="power_of_two of quantizer 'pact' is True or False, not 'yes'"):
        Q.PACT(4, power_of_two="yes")
