"""RPReLU: the formula and its gradient in float64 numpy, and the exact steps of eval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit.errors import ShapeError


def drawn(channels, seed=0):
    torch.manual_seed(seed)
    layer = lnn.RPReLU(channels)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def formula(x, gamma, beta, zeta):
    """One value at a time, as the paper's equation 4 has it, in the dtype of its arguments."""
    y = np.empty_like(x)
    for place in np.ndindex(x.shape):
        c = place[1]
        v = x[place] - gamma[c]
        y[place] = v + zeta[c] if v > 0 else beta[c] * v + zeta[c]
    return y


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=3),
    channels=st.integers(1, 5),
    batch=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_rprelu_is_the_formula_each_step_rounded_once(shape, channels, batch, seed):
    layer = drawn(channels, seed)
    x = torch.randn(batch, channels, *shape)
    expected = formula(x.numpy(), *(p.detach().numpy() for p in (layer.gamma, layer.beta, layer.zeta)))
    for training in (True, False):
        np.testing.assert_array_equal(layer.train(training)(x).detach().numpy(), expected)
    if x.ndim == 4:
        np.testing.assert_array_equal(layer(x.to(memory_format=torch.channels_last)).detach().numpy(), expected)


def test_rprelu_has_the_gradient_of_its_docstring():
    layer = drawn(3).double()
    x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(4, 3, 5, dtype=torch.float64)
    (layer(x) * g).sum().backward()
    gamma, beta, zeta = (p.detach().numpy() for p in (layer.gamma, layer.beta, layer.zeta))
    np.testing.assert_allclose(layer(x).detach().numpy(), formula(x.detach().numpy(), gamma, beta, zeta), rtol=1e-12, atol=1e-12)
    v, g = x.detach().numpy() - gamma[:, None], g.numpy()
    slope = np.where(v > 0, 1, beta[:, None])
    for found, expected in (
        (x.grad, slope * g),
        (layer.gamma.grad, -(slope * g).sum((0, 2))),
        (layer.beta.grad, (np.minimum(v, 0) * g).sum((0, 2))),
        (layer.zeta.grad, g.sum((0, 2))),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_rprelu_starts_as_a_prelu():
    x = torch.randn(2, 3, 4)
    assert torch.equal(lnn.RPReLU(3)(x), nn.PReLU(3)(x))
    assert torch.equal(lnn.RPReLU(3, 0.1)(x), nn.PReLU(3, 0.1)(x))
    assert {name: tuple(value.shape) for name, value in lnn.RPReLU(3).state_dict().items()} == {"gamma": (3,), "beta": (3,), "zeta": (3,)}


@pytest.mark.parametrize("make", [lambda: drawn(3), lambda: lnn.PReLU(3)])
def test_one_graph_under_compile_and_bf16_stays_bf16(make):
    layer, x = make(), torch.randn(2, 3, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for model in (layer, compiled):
        layer.zero_grad()
        model(x).square().sum().backward()
        results.append([p.grad.clone() for p in layer.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_net_with_rprelu_trains(bits):
    torch.manual_seed(0)
    quantizers = {"weight_quantizer": "magnitude_sign", "input_quantizer": {"name": "lsq", "bits": bits}}
    net = nn.Sequential(lnn.Linear(8, 32, **quantizers), lnn.BatchNorm1d(32), lnn.RPReLU(32), lnn.Linear(32, 2, **quantizers))
    x = torch.randn(64, 8)
    labels = (x[:, 0] > x[:, 1]).long()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    assert (net(x).argmax(1) == labels).float().mean() > 0.85
    assert all((p != start).any() for p, start in zip(net[2].parameters(), (0, 0.25, 0), strict=True))


@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (3,)])
def test_other_channels_than_its_own_are_refused(shape):
    with pytest.raises(ShapeError, match=r"a RPReLU of 3 channels takes \(N, 3, ..\), not"):
        lnn.RPReLU(3)(torch.randn(shape))
