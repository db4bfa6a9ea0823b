"""The price on bits counts what files and summaries count, pulls widths to the budget, and the widths found export."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import data
from lobit import nn as lnn
from lobit.bits import Bits
from lobit.errors import ConfigError
from lobit.optim import clip_latent_weights, groups_by, is_step, is_width, parameter_groups
from lobit.training import BitBudget, freeze_bits

LEARNED = {"bits": "W8A8", "weights": "learned_bits", "activations": "learned_bits"}


def net(policy=LEARNED, first=None):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10),
    )  # fmt: skip
    lobit.quantize_(model, policy, first=first, last=None)
    return model


def digits(split):
    held = data.load_data("digits")
    return torch.tensor(held.scale(getattr(held, f"{split}_images"), 0, 1)), torch.tensor(getattr(held, f"{split}_labels"))


def set_widths(model, *widths):
    """Weights and inputs of each layer, by moving steps."""
    layers = [layer for layer in model if isinstance(layer, lnn.QuantizedLayer)]
    with torch.no_grad():
        for layer, (weights, inputs) in zip(layers, widths, strict=True):
            for quantizer, bits in ((layer.weight_quantizer, weights), (layer.input_quantizer, inputs)):
                quantizer.log2_step.copy_(quantizer.log2_top - torch.log2(torch.tensor(2.0 ** (bits - quantizer.signed) - 1)))


MIXED = ((5, 6), (4, 3), (2, 4), (7, 5))


def test_costs_are_those_of_the_summary_and_of_the_formula():
    model, x = net(), digits("train")[0][:20]
    model(x)
    set_widths(model, *MIXED)
    budget = BitBudget(model, weight_bytes=10**6, weight_bits=8, activation_bits=8, bit_operations=1e9, example=x[:3])
    summary = lobit.summary(model, x).cost
    weights, reads = (8 * 9, 16 * 72, 40 * 256, 400), (64, 8 * 64, 256, 40)
    assert summary.macs_by_width.keys() == {"W5A6", "W4A3", "W2A4", "W7A5"}
    assert budget.costs() == {
        "weight_bytes": summary.weight_bytes,
        "weight_bits": pytest.approx(sum(n * w for n, (w, _) in zip(weights, MIXED, strict=True)) / sum(weights)),
        "activation_bits": pytest.approx(sum(n * a for n, (_, a) in zip(reads, MIXED, strict=True)) / sum(reads)),
        "bit_operations": summary.bit_operations,
    }
    assert budget.is_met
    assert budget().item() == 0


def test_float_layers_and_fixed_widths_count_and_have_no_gradient():
    model = net({"0": LEARNED, "3": {"bits": "W3A4"}, "8": {"bits": "W5"}})
    model(digits("train")[0][:20])
    budget = BitBudget(model, weight_bytes=40_000)
    assert budget.costs() == {"weight_bytes": 8 * 8 * 8 + 3 * 16 * 2 * 8 + 5 * 40 * 4 * 8 + 4 * 400}
    assert not budget().requires_grad or budget().item() == 0


def test_within_the_budget_it_is_nothing_and_beyond_it_pulls_every_width_down():
    model = net()
    model(digits("train")[0][:20])
    assert BitBudget(model, weight_bits=8)().item() == 0
    budget = BitBudget(model, weight_bits=4, strength=3)
    term = budget()
    assert term.item() == pytest.approx(3 * (8 / 4 - 1))
    term.backward()
    for layer in model:
        if isinstance(layer, lnn.QuantizedLayer):
            assert layer.weight_quantizer.log2_step.grad.item() < 0 < layer.weight_quantizer.log2_top.grad.item()
            assert layer.input_quantizer.log2_step.grad is None


def test_the_price_alone_pulls_widths_to_the_budget_and_not_below():
    model, x = net(), digits("train")[0][:20]
    model(x)
    budget = BitBudget(model, weight_bytes=6_000, activation_bits=5, example=x)
    widths = groups_by(model, {is_width: {"lr": 0.02}}, rest={"lr": 0.0})
    optimizer = torch.optim.Adam(widths)
    for _ in range(400):
        optimizer.zero_grad()
        term = budget()
        if budget.is_met:
            break
        term.backward()
        optimizer.step()
        clip_latent_weights(model)
    assert budget.is_met
    costs = budget.costs()
    assert 4_000 < costs["weight_bytes"] <= 6_000
    assert 4 <= costs["activation_bits"] <= 5


def test_training_on_digits_finds_mixed_widths_within_the_budget_that_export(tmp_path):
    (x, y), (test_x, test_y), model = digits("train"), digits("test"), net()
    optimizer = torch.optim.Adam(parameter_groups(model, lr=5e-3))
    budget = BitBudget(model, weight_bytes=5_000, activation_bits=4, example=x[:2])
    for epoch in range(12):
        if epoch == 9:
            found = freeze_bits(model)
            for group in optimizer.param_groups:
                group["lr"] /= 10
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            (F.cross_entropy(model(x[batch]), y[batch]) + budget()).backward()
            optimizer.step()
            clip_latent_weights(model)
    assert budget.is_met
    assert len(set(found.values())) > 1
    assert found == {
        path: Bits(layer.weight_quantizer.bits, layer.input_quantizer.bits) for path, layer in model.named_children() if path in found
    }
    with torch.no_grad():
        right = (model.eval()(test_x).argmax(1) == test_y).double().mean().item()
    assert right > 0.95  # of W8A8 it is 0.98 to 1
    path = tmp_path / "net.lobit"
    assert lobit.export(model, test_x[:32], path, strict=True).verification.ok
    cost = lobit.summary(path).cost
    assert cost.weight_bytes == budget.costs()["weight_bytes"] <= 5_000
    assert set(cost.macs_by_width) == {str(bits) for bits in found.values()}


def test_widths_that_are_still_learned_export_too(tmp_path):
    model, x = net(), digits("train")[0][:40]
    model(x)
    set_widths(model, *MIXED)
    with torch.no_grad():
        model[3].input_quantizer.log2_top -= 0.3  # 5 of the 7 codes of three bits
    model(x)
    assert lobit.export(model.eval(), x, tmp_path / "net.lobit", strict=True).verification.ok


def test_groups_give_widths_a_rate_of_their_own():
    model = net()
    found = {group["lr"]: len(group["params"]) for group in parameter_groups(model, lr=0.1)}
    assert found == {0.5: 16, 0.1: 14}
    assert len(groups_by(model, {is_step: {}}, rest={})[0]["params"]) == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "at least one limit: weight_bytes, weight_bits, activation_bits, bit_operations"),
        ({"weight_bits": 0}, "weight_bits of a bit budget must be a positive number, not 0"),
        ({"weight_bits": True}, "not True"),
        ({"weight_bits": 3, "strength": float("inf")}, "strength"),
        ({"activation_bits": 3}, "activation_bits depends on the size of activations: give example="),
        ({"weight_bits": 1.5}, "weight_bits=1.5 is out of reach: with the least width of every learned quantizer it is 2"),
    ],
)
def test_budgets_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BitBudget(net(), **settings)


def test_a_model_without_learned_widths_is_refused():
    model = net("W4A4")
    with pytest.raises(ConfigError, match="no quantizer whose width is learned"):
        BitBudget(model, weight_bits=3)
    with pytest.raises(ConfigError, match="none to fix"):
        freeze_bits(model)
