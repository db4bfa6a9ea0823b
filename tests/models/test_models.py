"""The zoo."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit import models
from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.quantizers import CodeDropout


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


@pytest.mark.parametrize(("name", "weights"), [("mnist-mlp", 36_806_656), ("mnist-mlp-torch", 10_014_720), ("cifar10-convnet", 14_022_016)])
def test_paper_nets_have_the_papers_number_of_weights(name, weights):
    model = models.create(name, bits="W1A1")
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == weights


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match="mnist-mlp"):
        models.create("mnist-mpl")


def test_a_paper_layer_is_product_pooling_norm_and_hard_tanh():
    kinds = [type(module).__name__ for module in models.create("cifar10-convnet", bits="W1A1")]
    assert kinds[3:7] == ["Conv2d", "MaxPool2d", "BatchNorm2d", "Hardtanh"]
    assert kinds[-2:] == ["Linear", "BatchNorm1d"]


def test_paper_nets_have_plain_signs_everywhere_and_eight_bits_at_the_input():
    model = models.create("mnist-mlp-small", bits="W1A1")
    layers = [module for module in model if isinstance(module, lnn.Linear)]
    assert [str(layer.input_quantizer.code_type) for layer in layers] == ["signed8", "odd1", "odd1", "odd1"]
    assert all(str(layer.weight_quantizer.code_type) == "odd1" and layer.weight_quantizer(layer.weight).scale == 1 for layer in layers)
    assert all(layer.weight.abs().max() <= 1 and layer.weight.std().item() == pytest.approx(1 / 3**0.5, rel=0.05) for layer in layers)
    assert all(module.eps == 1e-4 for module in model if isinstance(module, lnn.BatchNorm1d))


def test_the_torch_net_draws_its_hidden_activations_in_training_alone():
    model = models.create("mnist-mlp-torch", bits="W1A1", hidden=64)
    layers = [module for module in model if isinstance(module, lnn.Linear)]
    assert [str(layer.input_quantizer.code_type) for layer in layers] == ["signed8", "odd1", "odd1", "odd1"]
    x = torch.rand(40, 1, 28, 28) * 2 - 1
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_dropout_of_low_bit_activations_acts_on_codes():
    model = models.create("mnist-mlp-small", bits="W1A1", input_dropout=0.2, dropout=0.5)
    inputs = [module.input_quantizer for module in model if isinstance(module, lnn.Linear)]
    assert all(isinstance(quantizer, CodeDropout) for quantizer in inputs)
    assert [quantizer.p for quantizer in inputs] == [0.2, 0.5, 0.5, 0.5]
    assert not any(isinstance(module, nn.Dropout) for module in model)
    in_float = models.create("mnist-mlp-small", input_dropout=0.2, dropout=0.5)
    assert [module.p for module in in_float if isinstance(module, nn.Dropout)] == [0.2, 0.5, 0.5, 0.5]


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"no setting 'hidden'.*dropout"):
        models.create("mnist-mlp-small", bits="W1A1", hidden=3)
    with pytest.raises(ConfigError, match="6-bit gradients"):
        models.create("mnist-mlp-small", bits="W1A1G6")
