"""LSQ+: where step and offset start, what they cost, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lobit import nn as lnn
from lobit import optim
from lobit import quantizers as Q
from lobit.errors import ConfigError


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_first_batch_sets_both_to_a_smaller_error_than_the_whole_range_has(bits):
    x = F.silu(2 * torch.randn(4000, generator=torch.Generator().manual_seed(bits)))
    quantizer = Q.LSQPlus(bits)
    found = (quantizer(x).values() - x).square().sum().item()
    low, high = x.min().item(), x.max().item()
    steps = 2**bits - 1
    whole = torch.round((x - low) / (high - low) * steps) * (high - low) / steps + low
    assert found <= (whole - x).square().sum().item() * (1 + 1e-6)
    assert quantizer.step.item() <= (high - low) / steps * (1 + 1e-6)


def test_levels_are_spent_where_values_are():
    """After swish a signed grid leaves half of its codes unused; the offset does not."""
    x = F.silu(2 * torch.randn(4000, generator=torch.Generator().manual_seed(0)))
    errors = {}
    for quantizer in (Q.LSQ(3), Q.LSQPlus(3)):
        quantizer.settle(Q.Sample.of_rows(x[None]), Q.MeanSquaredError())
        errors[quantizer.alias] = (quantizer.eval()(x).values() - x).square().mean().item()
    assert errors["lsq_plus"] < errors["lsq"] / 2


def test_the_backward_keeps_the_input_and_no_other_float_of_its_size():
    x = torch.randn(1000, requires_grad=True)
    quantizer = Q.LSQPlus(4)
    quantizer(x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantizer(x).codes.sum()
    floats = {t.data_ptr() for t in kept if t.is_floating_point() and t.numel() == 1000}
    assert floats <= {x.data_ptr()}


def test_training_finds_an_offset():
    torch.manual_seed(0)
    x = torch.rand(256) + 3
    quantizer = Q.LSQPlus(2)
    quantizer.settle(Q.Sample.of_rows(torch.tensor([[0.0, 3.0]])), Q.MinMax())
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        (quantizer(x).values() - x).square().mean().backward()
        optimizer.step()
        quantizer.keep_in_range()
    assert (quantizer(x).values() - x).square().mean() < 1 / 3 / 10  # at first all values are 3, the highest level
    assert quantizer.offset.item() > 1


@pytest.mark.parametrize("what", ["step", "offset"])
def test_eval_refuses_what_is_not_finite_by_name(what):
    layer = lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer={"name": "lsq_plus", "bits": 2})
    layer(torch.randn(4, 3))
    with torch.no_grad():
        getattr(layer.input_quantizer, what).fill_(torch.nan)
    with pytest.raises(ConfigError, match=f"learned {what} of a Linear .* is nan"):
        layer.eval()(torch.randn(1, 3))


def test_both_are_learned_steps_to_the_optimizer():
    layer = lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer={"name": "lsq_plus", "bits": 2})
    groups = optim.parameter_groups(layer, 0.1)
    learned = next(group for group in groups if any(p is layer.input_quantizer.step for p in group["params"]))
    assert any(p is layer.input_quantizer.offset for p in learned["params"])
    assert learned["weight_decay"] == 0


@pytest.mark.parametrize("name", ["lsq_plus", "affine", "pact", "lsq"])
def test_state_that_was_copied_into_a_fresh_model_counts(name):
    """Averages of weights copy parameters and buffers and load no state."""

    def make():
        return nn.Sequential(lnn.Linear(3, 2, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": name, "bits": 4}))

    torch.manual_seed(0)
    model, fresh = make(), make()
    x = torch.randn(8, 3)
    model(x)
    with torch.no_grad():
        for ours, theirs in zip([*fresh.parameters(), *fresh.buffers()], [*model.parameters(), *model.buffers()], strict=True):
            ours.copy_(theirs)
    twin = copy.deepcopy(fresh)
    steps = [operand.numpy() for _, operand in twin[0].input_quantizer.steps()]  # asked first, as capture does
    np.testing.assert_array_equal(np.concatenate(steps), np.concatenate([o.numpy() for _, o in model[0].input_quantizer.steps()]))
    assert twin[0].input_quantizer.zero == model[0].input_quantizer.zero
    assert torch.equal(fresh.eval()(x), model.eval()(x))
