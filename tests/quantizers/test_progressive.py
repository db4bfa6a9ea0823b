"""A sign whose gradient sharpens: by what, who moves it, and how it is saved."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.models import register
from lobit.models.registry import _MODELS
from lobit.training import load_model, sharpen, train
from tests.quantizers.oracles import progressive as oracle
from tests.training.test_training import tiny


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", ["tanh", "hardtanh"])
def test_the_gradient_is_that_of_the_share(share, shape):
    quantizer = Q.ProgressiveSign(shape=shape)
    sharpen(quantizer, share)
    x = torch.linspace(-3, 3, 1001, requires_grad=True)
    quantizer(x).values().sum().backward()
    wanted = getattr(oracle, shape)(quantizer, x.detach().numpy(), 1.0)
    edge = np.abs(np.abs(oracle.sharpness(quantizer) * x.detach().numpy()) - 1) < 1e-5 if shape == "hardtanh" else np.zeros(1001, bool)
    np.testing.assert_allclose(x.grad.numpy()[~edge], wanted[~edge], rtol=1e-4, atol=1e-6)
    assert x.grad.max().item() == pytest.approx(max(1.0, 0.1 * 100**share), rel=1e-4)


def test_it_goes_from_nearly_the_identity_to_a_peak_of_the_area_of_a_step():
    x = torch.linspace(-1, 1, 20_001, requires_grad=True)
    for share, least, area in ((0.0, 0.99, 2.0), (1.0, 0.0, 2.0)):
        quantizer = Q.ProgressiveSign()
        sharpen(quantizer, share)
        (slope,) = torch.autograd.grad(quantizer(x).values().sum(), x)
        assert slope.min() >= least
        assert slope.mean().item() * 2 == pytest.approx(area, rel=0.01)


def net():
    torch.manual_seed(0)
    inner = Q.CodeDropout(Q.ProgressiveSign(), 0.1)
    return nn.Sequential(
        lnn.Linear(64, 16, weight_quantizer="progressive_sign", input_quantizer={"name": "linear", "bits": 8}),
        lnn.BatchNorm1d(16),
        lnn.Linear(16, 10, weight_quantizer="progressive_sign", input_quantizer=inner),
        lnn.BatchNorm1d(10),
    )


def shares(model):
    return [module.progress.item() for module in model.modules() if isinstance(module, Q.Progressive)]


def test_all_quantizers_of_a_model_move_and_the_share_is_saved_and_copied():
    model = net()
    sharpen(model, 0.75)
    assert shares(model) == [0.75] * 3
    other = net()
    other.load_state_dict(model.state_dict(), strict=True)
    assert shares(other) == shares(copy.deepcopy(model)) == [0.75] * 3
    floats = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10), nn.BatchNorm1d(10))
    other.load_state_dict(floats.state_dict(), strict=True)
    assert shares(other) == [0.0] * 3  # anew with weights that know of no quantizer


def test_a_compiled_quantizer_sees_each_share_without_being_compiled_again():
    quantizer = Q.ProgressiveSign()
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(quantizer, backend=counter, fullgraph=True)
    for share in (0.0, 0.4, 0.9):
        quantizer.set_progress(share)
        x = torch.linspace(-2, 2, 50, requires_grad=True)
        compiled(x).values().sum().backward()
        np.testing.assert_allclose(x.grad, oracle.tanh(quantizer, x.detach().numpy(), 1.0), rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        sharpen(net(), share)


def test_a_model_that_has_nothing_to_sharpen_is_refused():
    with pytest.raises(ConfigError, match="give its layers 'progressive_sign'"):
        sharpen(nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"shape": "cube"}, "choose one of tanh, hardtanh"), ({"first": 0}, "sharpness first from 0.001"), ({"last": 1e9}, "last")],
)
def test_settings_that_are_none_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Q.ProgressiveSignWeights(**settings)


@pytest.fixture
def model_name():
    @register("sharpening-net", input_shape=(1, 8, 8), num_classes=10, description="")
    def build(bits):
        return nn.Sequential(nn.Flatten(), *net())

    yield "sharpening-net"
    del _MODELS["sharpening-net"]


def test_a_recipe_moves_it_by_epochs_and_a_run_that_goes_on_is_as_sharp_as_a_whole_one(tmp_path, model_name):
    constant = {"lr": 0.01}
    recipe = tiny(model={"name": model_name}, optimizer=constant, epochs=4)
    whole = train(recipe, out=tmp_path / "whole", progress=False)
    assert whole.test_accuracy > 0.5
    last = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert [value.item() for name, value in last.items() if name.endswith("progress")] == [0.75] * 3
    train(tiny(model={"name": model_name}, optimizer=constant, epochs=2), out=tmp_path / "cut", progress=False)
    assert shares(load_model(tmp_path / "cut" / "checkpoints" / "last.ckpt")[0]) == [0.5] * 3
    train(recipe, out=tmp_path / "cut", resume=True, progress=False)
    on = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert [value.item() for name, value in on.items() if name.endswith("progress")] == [0.75] * 3
