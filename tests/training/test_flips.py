"""The flip ratio counts what a comparison of all codes counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit.training import FlipRatio, QuantizationSchedule


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        lnn.Conv2d(2, 4, 3, weight_quantizer="sign"),
        nn.Flatten(),
        lnn.Linear(4, 5, weight_quantizer={"name": "linear", "bits": 3}),
        nn.Linear(5, 2),
    )


def code(layer):
    """One bit by the sign, three bits by the printed formula, in numpy."""
    w = layer.weight.detach().numpy().astype(np.float64)
    return np.where(w >= 0, 1, -1) if isinstance(layer, nn.Conv2d) else np.clip(np.rint(w * 4), -4, 3)


def move(model, seed, size=0.4):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def test_shares_are_those_of_a_comparison_of_all_codes():
    model = net()
    flips = FlipRatio(model)
    assert flips.compute() == {}
    flips.update()
    assert flips.compute() == {}
    changed, last = {"0": 0, "2": 0}, {name: code(model[int(name)]) for name in "02"}
    for seed in range(3):
        move(model, seed)
        flips.update()
        for name in "02":
            now = code(model[int(name)])
            changed[name] += (now != last[name]).sum()
            last[name] = now
    sizes = {name: 3 * last[name].size for name in "02"}
    wanted = {name: changed[name] / sizes[name] for name in "02"} | {"all": sum(changed.values()) / sum(sizes.values())}
    assert flips.compute() == pytest.approx(wanted)
    assert 0 < wanted["all"] < 1


def test_a_new_mean_begins_at_the_last_look():
    model = net()
    flips = FlipRatio(model)
    flips.update()
    move(model, 1)
    flips.update()
    flips.reset()
    flips.update()
    assert flips.compute() == {"0": 0.0, "2": 0.0, "all": 0.0}


def test_looking_changes_neither_modes_nor_state_nor_random_numbers():
    model = nn.Sequential(lnn.Linear(4, 3, weight_quantizer={"name": "lsq", "bits": 2}))
    before, drawn = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    flips = FlipRatio(model)
    flips.update()
    flips.update()
    assert model[0].weight_quantizer.training
    assert not bool(model[0].weight_quantizer.started)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_widths_and_floats_are_not_compared():
    model = net()
    schedule = QuantizationSchedule(model[2], {1: "float", 2: "W8A8"})
    flips = FlipRatio(model)
    for time in range(3):
        schedule.advance(time)
        flips.update()
    assert flips.compute() == {"0": 0.0, "all": 0.0}
    flips.update()
    assert flips.compute()["2"] == 0.0


def test_each_matrix_of_a_recurrent_layer_is_counted():
    layer = nn.Sequential(lnn.GRU(4, 3, weight_quantizer="sign"))
    flips = FlipRatio(layer)
    flips.update()
    with torch.no_grad():
        layer[0].weight_hh_l0.neg_()
    flips.update()
    assert flips.compute() == {"0.weight_ih_l0": 0.0, "0.weight_hh_l0": 1.0, "all": pytest.approx(27 / 63)}


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_powers_of_two_are_compared_at_every_width(bits):
    layer = lnn.Linear(40, 3, weight_quantizer={"name": "log", "bits": bits})
    model = nn.Sequential(layer)
    flips = FlipRatio(model)
    flips.update()
    with torch.no_grad():
        layer.weight.copy_(torch.where(torch.arange(40) < 10, 2.0, 1.0) * layer.weight.sign().where(layer.weight != 0, 1) / 4)
    flips.update()
    flips.reset()
    with torch.no_grad():
        layer.weight[:, :10] /= 2
    flips.update()
    assert flips.compute() == {"0": 0.25, "all": 0.25}
    layer.weight_quantizer.set_bits(6)
    flips.reset()
    flips.update()
    assert flips.compute() == {}
