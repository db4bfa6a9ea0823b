"""Bop against a loop in float64, and combined with another optimizer."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.optim import Bop, blocks, with_bop
from lobit.training import QuantizationSchedule
from tests.devices import DEVICES


def oracle(w, gradients, gamma, threshold):
    w, m = w.astype(np.float64).copy(), np.zeros(w.shape)
    for gradient in gradients:
        for index in np.ndindex(w.shape):
            m[index] = (1 - gamma) * m[index] + gamma * float(gradient[index])
            if abs(m[index]) > threshold and (m[index] > 0) == (w[index] >= 0):
                w[index] = -w[index]
    return w


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("block", [8, 1 << 15])
@pytest.mark.parametrize(("gamma", "threshold"), [(0.25, 0.0), (0.25, 0.1), (1.0, 0.5), (0.125, 0.3)])
def test_flips_are_those_of_the_formula(gamma, threshold, block, device, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    rng = np.random.default_rng(1)
    start = np.where(rng.random((6, 5)) < 0.5, -1, 1).astype(np.float32) * rng.random((6, 5)).astype(np.float32)
    gradients = [rng.standard_normal((6, 5)).astype(np.float32) for _ in range(20)]
    weight = nn.Parameter(torch.from_numpy(start.copy()).to(device))
    optimizer = Bop([weight], gamma, threshold)
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient).to(device)
        optimizer.step()
    wanted = oracle(start, gradients, gamma, threshold)
    assert (weight.detach().cpu().numpy() == wanted).all()
    assert (wanted != start).any()


def test_a_weight_of_zero_counts_as_plus_one_and_can_flip():
    weight = nn.Parameter(torch.tensor([0.0, -0.0, 0.0]))
    weight.grad = torch.tensor([1.0, 1.0, -1.0])
    Bop([weight], gamma=1.0).step()
    assert (weight >= 0).tolist() == [False, False, True]


def test_the_magnitude_sign_keeps_its_scale():
    layer = lnn.Linear(5, 3, weight_quantizer="magnitude_sign")
    before = layer.quantized_weight()
    optimizer = Bop([layer.weight], gamma=1.0)
    layer(torch.randn(4, 5)).square().sum().backward()
    optimizer.step()
    after = layer.quantized_weight()
    assert torch.equal(before.scale, after.scale)
    assert not torch.equal(before.codes, after.codes)


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 10))
    lobit.quantize_(model, "W1A2")
    return model


def steps(model, optimizer, number, scheduler=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        x, y = torch.rand(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()


def test_with_bop_gives_it_the_one_bit_weights_and_the_rest_to_the_other():
    model = net()
    both = with_bop(model, partial(torch.optim.Adam, fused=True), lr=0.01, gamma=0.5, threshold=0.0)
    bop, adam = both.optimizers
    assert [id(p) for group in bop.param_groups for p in group["params"]] == [id(model[4].weight)]
    listed = sorted(id(p) for group in both.param_groups for p in group["params"])
    assert listed == sorted(id(p) for p in model.parameters())
    assert type(adam) is torch.optim.Adam
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    steps(model, both, 3)
    assert torch.equal(model[4].weight.abs(), before["4.weight"].abs())
    assert not torch.equal(model[4].weight, before["4.weight"])
    assert not torch.equal(model[1].weight, before["1.weight"])


def test_bop_and_adam_go_on_from_one_saved_state_bit_for_bit(tmp_path):
    make = partial(with_bop, rest=partial(torch.optim.Adam, fused=True), gamma=0.1, threshold=1e-4)
    whole, cut = net(), net()
    optimizer = make(whole)
    steps(whole, optimizer, 4)
    steps(whole, optimizer, 4, seed=1)
    first = make(cut)
    steps(cut, first, 4)
    torch.save({"net": cut.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state")
    stored = torch.load(tmp_path / "state", weights_only=True)
    again = net()
    again.load_state_dict(stored["net"])
    second = make(again)
    second.load_state_dict(stored["optimizer"])
    steps(again, second, 4, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_schedule_moves_gamma_and_the_rate_together():
    model = net()
    both = with_bop(model, torch.optim.Adam, lr=0.01, gamma=0.5)
    steps(model, both, 3, torch.optim.lr_scheduler.StepLR(both, 1, gamma=0.5))
    assert both.optimizers[0].param_groups[0]["lr"] == 0.0625
    assert {group["lr"] for group in both.optimizers[1].param_groups} == {0.01 / 8, 0.001 / 8}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: lnn.Linear(4, 3, weight_quantizer={"name": "linear", "bits": 1}), "0.weight"),
        (lambda: lnn.LSTM(4, 3, weight_quantizer={"name": "linear", "bits": 1}), "0.weight_ih_l0"),
    ],
)
@pytest.mark.parametrize(("until", "now"), [({2: "float"}, "in float"), ({1: "W1A1", 2: "W4A4"}, "of 4 bits")])
def test_a_schedule_that_gives_the_signs_other_bits_is_refused_in_a_loop_of_ones_own(layer, name, until, now):
    model = nn.Sequential(layer(), lnn.BatchNorm1d(3))
    both, schedule = with_bop(model, torch.optim.Adam), QuantizationSchedule(model, until)
    for time, refused in enumerate([now == "in float", True, False]):
        schedule.advance(time)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        if not refused:
            both.step()
            continue
        with pytest.raises(ConfigError, match=rf"{name}' is {now} at this time, as a schedule of bits sets it; leave weights out"):
            both.step()
        assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))
    copied = copy.deepcopy(both)
    assert not copied.optimizers[0]._quantizers
    copied.step()


def test_what_bop_is_not_for_is_refused():
    with pytest.raises(ConfigError, match="no one-bit weights for Bop"):
        with_bop(nn.Linear(3, 3), torch.optim.Adam)
    with pytest.raises(ConfigError, match="nothing but one-bit weights"):
        with_bop(lnn.Linear(3, 3, bias=False, weight_quantizer="sign"), torch.optim.Adam)
    for settings, told in (({"gamma": 0}, "gamma.*above 0 to 1"), ({"gamma": 2.0}, "gamma"), ({"threshold": -1}, "threshold")):
        with pytest.raises(ConfigError, match=told):
            Bop([nn.Parameter(torch.ones(1))], **settings)
