"""Runs with low-bit gradients: the shipped recipe trains, and the packed net knows nothing of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lobit import models, optim
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export
from lobit.data import load_data
from lobit.recipes import load_recipe
from lobit.runtime import load
from lobit.training import load_model, train

CHANCE = 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One epoch of the recipe."""
    folder = tmp_path_factory.mktemp("run") / "g6"
    return train("digits-w2a2g6", epochs=1, threads=1, out=folder, progress=False), folder


def test_the_recipe_with_six_bit_gradients_trains_far_above_chance(run):
    result, folder = run
    assert result.test_accuracy > 5 * CHANCE
    model, recipe = load_model(folder)
    assert recipe.model.bits == "W2A2G6"
    of_hidden = [module.gradient_quantizer for module in model.modules() if isinstance(module, lnn.QuantizedLayer)][1:-1]
    assert [(type(quantizer), quantizer.bits) for quantizer in of_hidden] == [(Q.DoReFaGradients, 6)] * 2


def test_it_differs_from_the_recipe_without_them_in_the_bits_alone():
    with_g, without = load_recipe("digits-w2a2g6"), load_recipe("digits-w2a2")
    changed = with_g.model_copy(update={"description": without.description, "model": with_g.model.model_copy(update={"bits": "W2A2"})})
    assert changed == without


def test_the_packed_net_is_that_of_the_same_weights_without_low_bit_gradients(run, tmp_path):
    model, _ = load_model(run[1])
    plain = models.create("digits-convnet", bits="W2A2")
    plain.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(16, 1, 8, 8)
    for net, name in ((model, "with"), (plain.eval(), "without")):
        export(net, x, tmp_path / f"{name}.lobit")
    assert (tmp_path / "with.lobit").read_bytes() == (tmp_path / "without.lobit").read_bytes()
    np.testing.assert_array_equal(load(tmp_path / "with.lobit")(x.numpy()), plain(x).detach().numpy())


@pytest.mark.parametrize("settings", [{"inputs_only": True}, {"scale_per": "tensor"}, {"stochastic": False}], ids=str)
@pytest.mark.parametrize("form", Q.names("gradients"))
def test_every_form_trains_the_digits_far_above_chance(form, settings):
    """4 bits, in every layer of a small net of one-bit weights and activations."""
    torch.manual_seed(0)
    quantizer = {"name": form, "bits": 4, **settings}
    one = {"weight_quantizer": "sign", "input_quantizer": "sign", "gradient_quantizer": quantizer}
    first = one | {"input_quantizer": {"name": "linear", "bits": 8}}
    net = torch.nn.Sequential(
        lnn.Linear(64, 64, False, **first), lnn.BatchNorm1d(64), lnn.Linear(64, 10, False, **one), lnn.BatchNorm1d(10)
    )
    data = load_data("digits")
    scaled = [torch.from_numpy(data.scale(images, -1, 0.99)).flatten(1) for images in (data.train_images, data.test_images)]
    labels = [torch.from_numpy(each).long() for each in (data.train_labels, data.test_labels)]
    optimizer = torch.optim.Adam(optim.parameter_groups(net, 0.01))
    for order in (torch.randperm(len(labels[0])) for _ in range(3)):
        for rows in order.split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(scaled[0][rows]), labels[0][rows]).backward()
            optimizer.step()
            optim.clip_latent_weights(net)
    with torch.no_grad():
        hits = net.eval()(scaled[1]).argmax(1) == labels[1]
    assert hits.float().mean() > 5 * CHANCE
