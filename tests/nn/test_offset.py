"""Inputs with a learned real offset: gradients of codes first equal those of the float formula, and what the second sum is made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError

PLUS = {"name": "lsq_plus", "bits": 3}
LSQ3 = {"name": "lsq", "bits": 3}
LAYERS = [
    (lambda: lnn.Linear(12, 5, weight_quantizer=LSQ3, input_quantizer=PLUS), (6, 12)),
    (lambda: lnn.Linear(12, 5, weight_quantizer=LSQ3, input_quantizer=PLUS), (2, 3, 12)),
    (lambda: lnn.Linear(12, 5, False, weight_quantizer="magnitude_sign", input_quantizer=PLUS), (12,)),
    (lambda: lnn.Conv2d(4, 6, 3, padding=1, groups=2, weight_quantizer=LSQ3, input_quantizer=PLUS), (3, 4, 5, 5)),
    (lambda: lnn.Conv2d(4, 6, (2, 3), 2, (0, 2), 1, 1, False, weight_quantizer=LSQ3, input_quantizer=PLUS), (3, 4, 7, 5)),
    (lambda: lnn.Conv2d(4, 6, 3, 2, weight_quantizer=LSQ3, input_quantizer=PLUS), (4, 7, 7)),
]


class Rounded(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx, v):
        return v.round()

    @staticmethod
    def backward(ctx, g):
        return g


def fake_quant(layer, x):
    """The layer of the papers' formulas in float64, and its leaves: input, weight, steps, offset, bias."""
    inputs, weights = layer.input_quantizer, layer.weight_quantizer
    x, w = x.detach().double().requires_grad_(), layer.weight.detach().double().requires_grad_()
    step, offset = (p.detach().double().requires_grad_() for p in (inputs.step, inputs.offset))
    # the float32 quotients decide the codes; a float64 rounding of another tie would compare other codes
    values = Rounded.apply(((x - offset) / step).clamp(0, 7)) * step + offset
    leaves = {"x": x, "weight": w, "input_quantizer.step": step, "input_quantizer.offset": offset}
    if isinstance(weights, Q.LSQWeights):
        w_step = weights.step.detach().double().requires_grad_()
        kernel = Rounded.apply((w / w_step).clamp(-4, 3)) * w_step
        leaves["weight_quantizer.step"] = w_step
    else:
        magnitude = w.detach().abs().flatten(1).mean(1).reshape(-1, *[1] * (w.ndim - 1))
        kernel = w + (torch.where(w.detach() >= 0, 1.0, -1.0) * magnitude - w.detach())
    bias = None if layer.bias is None else layer.bias.detach().double().requires_grad_()
    if bias is not None:
        leaves["bias"] = bias
    if isinstance(layer, nn.Conv2d):
        y = F.conv2d(values, kernel, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    else:
        y = F.linear(values, kernel, bias)
    return y, leaves


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_gradients_of_step_offset_and_weights_are_those_of_fake_quantization_in_float64(make, shape):
    torch.manual_seed(0)
    layer = make()
    x = F.silu(2 * torch.randn(shape))
    layer(x)  # starts the quantizers
    with torch.no_grad():
        layer.input_quantizer.step.mul_(0.8)  # so that some values lie beyond each end
        layer.input_quantizer.offset.add_(0.1)
    v = x.clone().requires_grad_()
    y = layer(v)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * g).sum().backward()
    wanted, leaves = fake_quant(layer, x)
    torch.testing.assert_close(y.detach(), wanted.detach().float(), rtol=1e-4, atol=1e-4)
    (wanted * g).sum().backward()
    found = dict(layer.named_parameters()) | {"x": v}
    one = x.ndim == 1 or (isinstance(layer, nn.Conv2d) and x.ndim == 3)
    sample = x.numel() if one else x.numel() // len(x)
    weights = layer.weight[0].numel()
    factors = {
        "input_quantizer.step": (sample * 7) ** -0.5,
        "input_quantizer.offset": (sample * 7) ** -0.5,
        "weight_quantizer.step": (weights * 3) ** -0.5,
    }
    assert set(leaves) == set(found)
    for name, leaf in leaves.items():
        expected = leaf.grad * factors.get(name, 1.0)
        torch.testing.assert_close(found[name].grad, expected.float(), rtol=1e-3, atol=1e-3 * float(expected.abs().max()), msg=name)


def test_zero_padding_is_real_zero_which_need_not_be_a_level():
    """Padded positions add nothing, whatever the offset."""
    layer = lnn.Conv2d(1, 1, 3, padding=1, bias=False, weight_quantizer={"name": "linear", "bits": 4}, input_quantizer=PLUS)
    layer.input_quantizer.settle(Q.Sample.of_rows(torch.tensor([[0.5, 4.0]])), Q.MinMax())  # levels 0.5, 1.0, .., 4.0
    with torch.no_grad():
        layer.weight.fill_(0.5)
    layer.eval()
    y = layer(torch.full((1, 1, 3, 3), 0.5))
    torch.testing.assert_close(y, 0.25 * torch.tensor([[[[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]]]), rtol=0, atol=0)


def test_dropout_of_codes_refuses_an_offset():
    quantizer = Q.CodeDropout(Q.LSQPlus(2), 0.5)
    with pytest.raises(ConfigError, match="learned offset"):
        quantizer(torch.randn(10))


def test_dropout_of_codes_drops_to_the_zero_point():
    torch.manual_seed(0)
    quantizer = Q.CodeDropout(Q.AffineActivations(4), 0.5)
    x = torch.randn(1000)
    q = quantizer(x)
    assert quantizer.zero == quantizer.quantizer.zero > 0
    dropped = q.values() == 0
    assert 0.4 < dropped.float().mean() < 0.7
    torch.testing.assert_close(q.values()[~dropped], 2 * quantizer.quantizer(x).values()[~dropped])


@pytest.mark.parametrize(
    "inputs", [{"name": "affine", "bits": 8}, {"name": "affine", "bits": 8, "signed": True}, {"name": "pact", "bits": 4, "alpha": 1.5}]
)
@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 7, "symmetric": False}, {"bits": 3, "symmetric": False, "per_channel": False}])
def test_a_layer_with_zero_points_trains_as_the_float_layer_of_its_values(inputs, settings):
    torch.manual_seed(5)
    layer = lnn.Conv2d(4, 6, 3, padding=1, groups=2, weight_quantizer={"name": "affine", **settings}, input_quantizer=inputs)
    x = torch.randn(2, 4, 5, 5) - 1
    layer(x)
    results = []
    for values_first in (False, True):
        layer.zero_grad()
        v = x.clone().requires_grad_()
        if values_first:
            weight = layer.weight_quantizer(layer.weight).values()
            y = F.conv2d(layer.input_quantizer(v).values(), weight, layer.bias, padding=1, groups=2)
        else:
            y = layer(v)
        y.square().mean().backward()
        results.append([v.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
