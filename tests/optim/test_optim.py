"""Steps of latent weights and their clipping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit import optim
from lobit.errors import ConfigError


def paper_layer(*shape):
    kind = lnn.Linear if len(shape) == 2 else lnn.Conv2d
    return kind(*shape, weight_quantizer="sign", input_quantizer="sign")


@pytest.mark.parametrize(
    ("layer", "factor", "power"),
    [(paper_layer(784, 4096), 57.0, 64), (paper_layer(4096, 4096), 73.9, 64), (paper_layer(512, 512, 3), 78.4, 64)],
)
def test_step_factors_are_the_papers(layer, factor, power):
    assert optim.step_factor(layer, "glorot") == pytest.approx(factor, abs=0.06)
    assert optim.step_factor(layer, "power-of-two") == power


def test_groups_hold_every_parameter_once():
    layer = paper_layer(8, 4)
    model = nn.Sequential(
        layer, lnn.BatchNorm1d(4), lnn.Linear(4, 4, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer="sign"), layer
    )
    groups = optim.parameter_groups(model, 0.1, step_scale="glorot", weight_decay=0.5)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert groups[0]["lr"] == pytest.approx(0.1 * optim.step_factor(layer, "glorot"))
    assert [group["weight_decay"] for group in groups] == [0.0, 0.0, 0.5]
    with pytest.raises(ConfigError, match="glorot"):
        optim.parameter_groups(model, 0.1, step_scale="he")


def test_only_latent_weights_are_clipped():
    model = nn.Sequential(paper_layer(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(5.0)
    optim.clip_latent_weights(model)
    assert (model[0].weight == 1).all()
    assert all((p == 5).all() for p in (model[0].bias, model[1].weight, model[1].bias))


def test_learned_steps_are_kept_positive():
    layer = lnn.Linear(3, 2, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2})
    layer(torch.randn(4, 3))
    with torch.no_grad():
        layer.input_quantizer.step.fill_(-1.0)
        layer.weight_quantizer.step[0] = 0.0
    kept = layer.weight_quantizer.step[1].item()
    optim.clip_latent_weights(layer)
    assert layer.input_quantizer.step > 0
    assert (layer.weight_quantizer.step > 0).all()
    assert layer.weight_quantizer.step[1].item() == kept
