"""The zoo."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit import models, optim
from lobit import nn as lnn
from lobit.capture import export
from lobit.errors import ConfigError
from lobit.quantizers import CodeDropout, DoReFaGradients


@pytest.mark.parametrize("name", models.list_models())
@pytest.mark.parametrize("bits", [None, "W1A1", "W2A4", "W1A2G6"])
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
    with pytest.raises(ConfigError, match="'ordinary' or 'shift', not 'group'"):
        models.create("mnist-mlp-small", bits="W1A1", batch_norm="group")


@pytest.mark.parametrize("name", ["mnist-mlp-small", "cifar10-convnet"])
def test_bits_of_gradients_reach_every_layer_of_the_paper_nets(name):
    layers = [module for module in models.create(name, bits="W1A2G6") if isinstance(module, lnn.QuantizedLayer)]
    assert all(isinstance(layer.gradient_quantizer, DoReFaGradients) and layer.gradient_quantizer.bits == 6 for layer in layers)
    assert all(layer.gradient_quantizer is None for layer in models.create(name, bits="W1A2") if isinstance(layer, lnn.QuantizedLayer))


def test_nets_that_quantize_makes_low_bit_keep_float_gradients_in_their_first_and_last_layer():
    layers = [module for module in models.create("digits-convnet", bits="W1A2G6") if isinstance(module, lnn.QuantizedLayer)]
    assert [None if layer.gradient_quantizer is None else layer.gradient_quantizer.bits for layer in layers] == [None, 6, 6, None]


def test_gradients_alone_may_be_low_bit():
    for name in ("mnist-mlp-small", "digits-convnet"):
        info, model = models.model_info(name), models.create(name, bits="G4")
        model(torch.rand(4, *info.input_shape)).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "hidden"), [("mnist-mlp-small", 3), ("cifar10-convnet", 8)])
def test_shift_based_batch_norm_is_in_the_hidden_layers_and_the_last_keeps_the_ordinary_one(name, hidden):
    model = models.create(name, bits="W1A1", batch_norm="shift")
    norms = [module for module in model if "BatchNorm" in type(module).__name__]
    assert [type(norm).__name__.startswith("Shift") for norm in norms] == [True] * hidden + [False]
    assert all((norm.eps, norm.momentum) == (1e-5, 0.125) for norm in norms[:-1])
    ordinary = models.create(name, bits="W1A1")
    assert not any("Shift" in type(module).__name__ for module in ordinary)
    assert [type(module).__name__.removeprefix("Shift") for module in model] == [type(module).__name__ for module in ordinary]


def test_a_paper_net_with_shift_norms_and_low_bit_gradients_trains_and_exports(tmp_path):
    torch.manual_seed(0)
    model = models.create("mnist-mlp-small", bits="W1A1G6", batch_norm="shift")
    x, labels = torch.rand(64, 1, 28, 28) * 2 - 1, torch.arange(64) % 10
    optimizer = torch.optim.Adam(optim.parameter_groups(model, 3e-3), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = lnn.SquaredHingeLoss()(model(x), labels)
        loss.backward()
        optimizer.step()
        optim.clip_latent_weights(model)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    report = export(model.eval(), x, tmp_path / "net.lobit", strict=True)
    assert report.verification.ok
