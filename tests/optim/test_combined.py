"""Several optimizers behave as each would alone, and look like one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.optim import CombinedOptimizer, ShiftAdaMax, with_bop


def pair():
    return [nn.Parameter(torch.arange(1.0, 4.0)) for _ in range(2)]


def loss(a, b):
    return (a.square() + (b - 1).square()).sum()


def test_each_part_does_what_it_does_alone():
    (a, b), (c, d) = pair(), pair()
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1, momentum=0.9), ShiftAdaMax([b]))
    apart = [torch.optim.SGD([c], lr=0.1, momentum=0.9), ShiftAdaMax([d])]
    for _ in range(4):
        both.zero_grad()
        loss(a, b).backward()
        both.step()
        for optimizer in apart:
            optimizer.zero_grad()
        loss(c, d).backward()
        for optimizer in apart:
            optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert set(both.state) == {a, b}
    assert both.optimizers[0].state is both.optimizers[1].state is both.state


def test_a_closure_runs_once():
    a, b = pair()
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1), torch.optim.SGD([b], lr=0.1))
    calls = []

    def closure():
        calls.append(1)
        both.zero_grad()
        found = loss(a, b)
        found.backward()
        return found

    assert both.step(closure).item() == loss(*pair()).item()
    assert len(calls) == 1
    assert a[0].item() == pytest.approx(0.8)


def test_a_loaded_state_reaches_the_parts_and_fused_adam_keeps_its_step_a_tensor():
    (a, b), (c, d) = pair(), pair()
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1, momentum=0.9), torch.optim.Adam([b], lr=0.1, fused=True))
    loss(a, b).backward()
    both.step()
    other = CombinedOptimizer(torch.optim.SGD([c], lr=0.5, momentum=0.9), torch.optim.Adam([d], lr=0.5, fused=True))
    other.load_state_dict(copy.deepcopy(both.state_dict()))
    assert [group["lr"] for part in other.optimizers for group in part.param_groups] == [0.1, 0.1]
    assert other.optimizers[1].state[d]["step"].item() == 1
    with torch.no_grad():
        c.copy_(a)
        d.copy_(b)
    for x, y, optimizer in ((a, b, both), (c, d, other)):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)


def test_a_gradient_scaler_takes_it_for_one():
    a, b = pair()
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1), torch.optim.Adam([b], lr=0.1, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(loss(a, b)).backward()
    scaler.step(both)
    assert a[0].item() == pytest.approx(0.8)


def test_parameters_in_two_parts_and_late_groups_are_refused():
    a, b = pair()
    with pytest.raises(ConfigError, match="Adam has 1 parameters that an optimizer before it has.*groups_by"):
        CombinedOptimizer(torch.optim.SGD([a, b], lr=0.1), torch.optim.Adam([b]))
    with pytest.raises(ConfigError, match="two or more optimizers, not SGD"):
        CombinedOptimizer(torch.optim.SGD([a], lr=0.1))
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1), torch.optim.SGD([b], lr=0.1))
    with pytest.raises(ConfigError, match="takes no more groups"):
        both.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


@pytest.mark.parametrize("again", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["copied", "pickled"])
def test_a_copy_goes_on_as_the_original_does_and_its_parts_share_its_state(again):
    a, b = pair()
    both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1, momentum=0.9), torch.optim.Adam([b], lr=0.1))
    loss(a, b).backward()
    both.step()
    other = again(both)
    (c,), (d,) = (group["params"] for group in other.param_groups)
    assert c is not a
    assert all(part.state is other.state for part in other.optimizers)
    assert [id(group) for part in other.optimizers for group in part.param_groups] == [id(group) for group in other.param_groups]
    for x, y, optimizer in ((a, b, both), (c, d, other)):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.param_groups[0]["lr"] = 0.3
        optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    with pytest.raises(ConfigError, match="takes no more groups"):
        other.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_bop_beside_another_optimizer_is_copied_with_its_model():
    model = nn.Sequential(lnn.Linear(4, 3, weight_quantizer="sign", input_quantizer="sign"), nn.Linear(3, 2))
    optimizer = with_bop(model, torch.optim.Adam)
    twin, other = copy.deepcopy((model, optimizer))
    x = torch.randn(5, 4)
    for net, each in ((model, optimizer), (twin, other)):
        for _ in range(3):
            each.zero_grad()
            net(x).square().sum().backward()
            each.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
