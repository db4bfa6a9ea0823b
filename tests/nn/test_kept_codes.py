"""Weight codes that eval keeps are never stale."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lobit import nn as lnn

LSQ8 = {"name": "lsq", "bits": 8}


def make():
    torch.manual_seed(0)
    return lnn.Linear(16, 4, weight_quantizer=LSQ8, input_quantizer="sign").eval()


def in_place(layer):
    layer.weight.mul_(-1)


def new_parameter(layer):
    layer.weight = nn.Parameter(torch.randn(4, 16))


def new_data(layer):
    layer.weight.data = torch.randn(4, 16)


def there_and_back(layer):
    layer.half().float()


def loaded(layer):
    layer.load_state_dict({"weight": torch.randn(4, 16), "bias": torch.zeros(4)})


def new_mode(layer):
    layer.weight.data.mul_(-1)  # moves no version
    layer.train().eval()


def stepped(layer):
    layer.train()(torch.randn(2, 16))
    layer.eval()
    layer.quantized_weight()
    layer.weight_quantizer.step.mul_(2)


@pytest.mark.parametrize("change", [in_place, new_parameter, new_data, there_and_back, loaded, new_mode, stepped])
@torch.no_grad()
def test_codes_follow(change):
    layer = make()
    before = layer.quantized_weight()
    change(layer)
    now, fresh = layer.quantized_weight(), layer.weight_quantizer(layer.weight)
    assert torch.equal(now.codes, fresh.codes)
    assert torch.equal(now.scale, fresh.scale)
    assert not (torch.equal(now.codes, before.codes) and torch.equal(now.scale, before.scale))


@torch.no_grad()
def test_codes_are_kept_while_nothing_changes():
    layer = make()
    assert layer.quantized_weight().codes is layer.quantized_weight().codes


def test_codes_made_in_inference_mode_serve_a_gradient_later():
    layer = make().requires_grad_(False)
    with torch.inference_mode():
        layer(torch.randn(2, 16))
    x = torch.randn(2, 16, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_frozen_weight_does_not_hide_the_gradient_of_its_step():
    layer = make()
    layer.train()(torch.randn(2, 16))
    layer.eval()
    layer.weight.requires_grad_(False)
    with torch.no_grad():
        layer(torch.randn(2, 16))
    layer(torch.randn(2, 16)).sum().backward()
    assert layer.weight_quantizer.step.grad.abs().sum() > 0


def test_copies_and_pickles_are_independent():
    layer = make()
    x = torch.randn(3, 16)
    with torch.no_grad():
        y = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x), y)
            twin.weight.neg_()
            assert not torch.equal(twin(x), y)
            assert torch.equal(layer(x), y)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("kind", ["linear", "lstm"])
def test_a_fused_optimizer_in_eval_mode_changes_the_codes_too(make, kind):
    """Fused optimizers write parameters without moving their version."""
    torch.manual_seed(0)
    settings = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}
    layer = lnn.Linear(6, 5, **settings) if kind == "linear" else lnn.LSTM(6, 5, **settings)
    x = torch.randn(3, 2, 6)
    layer(x)
    layer.eval()
    optimizer = make(layer.parameters(), lr=0.3, fused=True)
    for _ in range(2):
        with torch.no_grad():
            before = layer(x)
        optimizer.zero_grad()
        y = layer(x)
        (y if kind == "linear" else y[0]).square().sum().backward()
        with torch.no_grad():
            layer(x)  # kept once more, between the gradient and the step
        optimizer.step()
        with torch.no_grad():
            after, fresh = layer(x), copy.deepcopy(layer)(x)
        first = (lambda v: v) if kind == "linear" else (lambda v: v[0])
        assert torch.equal(first(after), first(fresh))
        assert not torch.equal(first(after), first(before))


@pytest.mark.filterwarnings("error")  # PyTorch's, where the address of a tensor without memory is asked for
def test_codes_without_values_are_not_kept():
    layer, x = lnn.Linear(4, 3, weight_quantizer="magnitude_sign").eval(), torch.randn(2, 4)
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert layer(x).shape == (2, 3)
        y = layer(x)
        assert type(y) is torch.Tensor
        torch.testing.assert_close(y, layer.train()(x))
