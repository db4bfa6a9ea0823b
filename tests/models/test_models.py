"""The zoo."""

from __future__ import annotations

import pytest
import torch

from lobit import models
from lobit.errors import ConfigError


@pytest.mark.parametrize("name", models.list_models())
@pytest.mark.parametrize("bits", [None, "W1A1", "W2A4"])
def test_every_model_trains_a_step_and_has_its_shape(name, bits):
    if name == "mnist-mlp":
        pytest.skip("the same code as mnist-mlp-small, 16 times as large")
    info, model = models.model_info(name), models.create(name, bits=bits)
    y = model(torch.rand(4, *info.input_shape))
    assert y.shape == (4, info.num_classes)
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.eval()(torch.rand(2, *info.input_shape)).shape == (2, info.num_classes)


@pytest.mark.parametrize(("name", "weights"), [("mnist-mlp", 36_806_656), ("cifar10-convnet", 14_022_016)])
def test_paper_nets_have_the_papers_number_of_weights(name, weights):
    model = models.create(name, bits="W1A1")
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == weights


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match="mnist-mlp"):
        models.create("mnist-mpl")
