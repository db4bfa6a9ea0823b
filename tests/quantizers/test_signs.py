"""Signs beyond the table: what is kept for the backward pass, thresholds in layers, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export
from lobit.errors import ConfigError


def saved_bytes(quantizer, x):
    """Bytes that the backward pass keeps, of tensors that are not x itself."""
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        quantizer(x)
    return sum(t.numel() * t.element_size() for t in kept if t.data_ptr() != x.data_ptr())


@pytest.mark.parametrize(
    ("quantizer", "bytes_a_value"),
    [
        (Q.Sign(), 1),
        (Q.IdentitySign(), 0),
        (Q.ApproxSign(), 0),
        (Q.SwishSign(), 0),
        (Q.MagnitudeSign(gradient="xnor"), 1),
        (Q.TernaryWeights(), 0),
    ],
)
def test_the_backward_pass_keeps_a_mask_or_the_input_and_no_other_float(quantizer, bytes_a_value):
    x = torch.randn(64, 256, requires_grad=True)
    per_channel = 64 * 8
    assert saved_bytes(quantizer, x) <= bytes_a_value * x.numel() + per_channel


@pytest.mark.parametrize("gradient", ["clipped", "identity", "approx", "swish"])
def test_a_name_of_its_own_is_the_sign_with_that_gradient(gradient):
    x = torch.linspace(-3, 3, 101)
    alias = {"clipped": "sign"}.get(gradient, f"{gradient}_sign")
    grads = []
    for quantizer in (Q.get(alias, "activations"), Q.get({"name": "sign", "gradient": gradient}, "activations")):
        t = x.clone().requires_grad_()
        quantizer(t).values().sum().backward()
        grads.append(t.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("beta", [0.5, 5.0, 50.0])
def test_the_swish_slope_is_the_derivative_of_the_swish_step(beta):
    """BNN+: ``2 sigmoid(beta x) (1 + beta x (1 - sigmoid(beta x))) - 1``, differentiated by PyTorch in float64."""
    x = torch.linspace(-4, 4, 401, dtype=torch.float64, requires_grad=True)
    s = torch.sigmoid(beta * x)
    (wanted,) = torch.autograd.grad((2 * s * (1 + beta * x * (1 - s)) - 1).sum(), x)
    t = x.detach().float().requires_grad_()
    Q.sign(t, "swish", beta=beta).sum().backward()
    torch.testing.assert_close(t.grad.double(), wanted, rtol=1e-5, atol=1e-6 * beta)


def test_the_approx_slope_has_the_area_of_the_step_it_stands_for():
    x = torch.linspace(-1.5, 1.5, 30001).requires_grad_()
    Q.sign(x, "approx").sum().backward()
    assert x.grad.double().sum().item() * 1e-4 == pytest.approx(2.0, abs=1e-4)  # from -1 to +1


def convolution():
    torch.manual_seed(0)
    net = nn.Sequential(
        lnn.Conv2d(3, 6, 3, padding=1, weight_quantizer="magnitude_sign", input_quantizer="rsign"),
        lnn.BatchNorm2d(6),
        lnn.Conv2d(6, 4, 3, groups=2, weight_quantizer="ternary", input_quantizer="rsign"),
        nn.Flatten(),
        lnn.Linear(4 * 9, 5, weight_quantizer={"name": "log", "bits": 3, "top": None}, input_quantizer="rsign"),
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 3, 5, 5)).square().mean().backward()
        optimizer.step()
    return net


def test_thresholds_are_learned_for_each_channel_and_exported(tmp_path):
    net = convolution()
    shapes = [tuple(layer.input_quantizer.shift.shape) for layer in (net[0], net[2], net[4])]
    assert shapes == [(3, 1, 1), (6, 1, 1), (36,)]
    assert all((layer.input_quantizer.shift != 0).any() for layer in (net[0], net[2], net[4]))
    report = export(net.eval(), torch.randn(9, 3, 5, 5), tmp_path / "net.lobit", strict=True).verification
    assert report.equal == report.compared > 0


def test_the_gradient_of_a_threshold_is_less_the_sum_over_its_channel():
    quantizer = Q.RSign()
    quantizer.attach((3, 1, 1))
    with torch.no_grad():
        quantizer.shift.copy_(torch.tensor([-0.2, 0.0, 0.3]).reshape(3, 1, 1))
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    g = torch.randn(4, 3, 5, 5)
    (quantizer(x).values() * g).sum().backward()
    torch.testing.assert_close(quantizer.shift.grad.flatten(), -x.grad.sum((0, 2, 3)))
    v = x.detach().double().numpy() - quantizer.shift.detach().double().numpy()
    np.testing.assert_allclose(x.grad.numpy(), g.numpy() * np.maximum(0, 2 - 2 * np.abs(v)), rtol=1e-4, atol=1e-6)


def test_a_state_with_thresholds_reloads_into_a_new_layer_and_a_float_state_starts_them_anew():
    net = convolution().eval()
    fresh = copy.deepcopy(net)
    for layer in (fresh[0], fresh[2], fresh[4]):
        nn.init.constant_(layer.input_quantizer.shift, 7.0)
    fresh.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(fresh(x), net(x))
    fresh.load_state_dict({key: value for key, value in net.state_dict().items() if "quantizer" not in key}, strict=True)
    assert not fresh[0].input_quantizer.shift.any()


def test_quantize_gives_thresholds_to_every_layer():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    lobit.quantize_(net, {"*": {"weights": "magnitude_sign", "activations": "rsign", "bits": "W1A1"}}, first=None, last=None)
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    assert net[0].input_quantizer.shift.grad.shape == (3, 1, 1)


def test_thresholds_are_where_their_layer_is():
    layer = lnn.Conv2d(3, 4, 3, device="meta", weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.RSign(), 0.1))
    assert layer.input_quantizer.quantizer.shift.device.type == "meta"


def test_dropout_of_codes_hands_its_quantizer_the_channels():
    layer = lnn.Linear(5, 2, weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.RSign(), 0.5))
    assert layer.input_quantizer.quantizer.shift.shape == (5,)
    layer(torch.randn(3, 5)).sum().backward()


def test_a_threshold_for_each_channel_belongs_to_one_layer():
    quantizer = Q.RSign()
    with pytest.raises(ConfigError, match="how many channels"):
        quantizer(torch.ones(2, 3))
    lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer=quantizer)
    with pytest.raises(ConfigError, match="of its own"):
        lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer=quantizer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Q.Sign(gradient="straight"), "'straight'; choose one of clipped, identity, approx, swish"),
        (lambda: Q.SwishSign(beta=0.0), "steepness beta above 0"),
        (lambda: Q.SignWeights(gradient="swish", beta=float("nan")), "steepness beta above 0"),
        (lambda: Q.MagnitudeSign(gradient="clipped"), "choose 'dorefa' or 'xnor'"),
        (lambda: Q.TernaryWeights(threshold=1.0), "from 0 to less than 1"),
        (lambda: Q.TernaryWeights(bits=3), "has 2 bits, not 3"),
        (lambda: Q.LogQuant(9), "8 bits"),
        (lambda: Q.LogQuant(3, top=0.5), "top from -16 to 16"),
        (lambda: Q.LogQuant(3, top=None), "top from -16 to 16"),
        (lambda: Q.LogQuantWeights(3, top=99), "top from -16 to 16"),
    ],
)
def test_settings_that_are_none_are_refused_with_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
