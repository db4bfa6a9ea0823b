"""Shift-based batch norm against Algorithm 2 written again in float64 numpy; and as part of a network, compiled, in bf16, in a file."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.errors import ConfigError, ShapeError
from lobit.runtime import Session
from tests.devices import DEVICES

SHAPES = [(8, 5), (6, 5, 4), (4, 5, 3, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make(shape, **settings):
    return (lnn.ShiftBatchNorm2d if len(shape) == 4 else lnn.ShiftBatchNorm1d)(shape[1], **settings)


def power(x):
    """AP2 by the logarithm, in float64."""
    with np.errstate(divide="ignore"):
        return np.where(x == 0, 0, np.sign(x) * 2.0 ** np.rint(np.log2(np.abs(x))))


def rows(x):
    """Channels as columns, all else as rows."""
    return np.moveaxis(np.asarray(x, np.float64), 1, -1).reshape(-1, x.shape[1])


def like(columns, shape):
    return np.moveaxis(columns.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


class Oracle:
    """One training step: the letters are those of the algorithm."""

    def __init__(self, x, gamma, beta, eps=1e-5):
        x, self.gamma = rows(x), np.asarray(gamma, np.float64)
        self.mean = x.mean(0)
        c = x - self.mean
        self.c2 = power(c)
        self.s = ((self.c2 * c).mean(0) + eps) ** -0.5
        self.s2 = power(self.s)
        self.xhat = c * self.s2
        self.y = power(self.gamma) * self.xhat + np.asarray(beta, np.float64)

    def backward(self, g):
        g = rows(g)
        dx = (g - g.mean(0) - self.c2 * self.s2**2 * (self.c2 * g).mean(0)) * self.s2 * power(self.gamma)
        return dx, (power(self.xhat) * g).sum(0), g.sum(0)


def started(shape, seed, spread=2.0):
    """A layer with factors of both signs that are no powers of two, its input and the gradient of its output."""
    generator = torch.Generator().manual_seed(seed)
    norm = make(shape)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(shape[1], generator=generator))
        norm.bias.copy_(torch.randn(shape[1], generator=generator))
    x = torch.randn(shape, generator=generator) + torch.randn((1, shape[1], *[1] * (len(shape) - 2)), generator=generator)
    return norm, (x * spread).requires_grad_(), torch.randn(shape, generator=generator)


@every_shape
@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([1e-3, 0.3, 2.0, 1e3]))
def test_forward_backward_and_running_statistics_are_the_algorithms(shape, seed, spread):
    norm, x, g = started(shape, seed, spread)
    oracle = Oracle(x.detach().numpy(), norm.weight.detach().numpy(), norm.bias.detach().numpy())
    turns = np.abs(np.log2(np.abs(np.concatenate([(oracle.xhat / oracle.s2).ravel(), oracle.s]))) % 1 - 0.5)
    if turns.min() < 1e-5:  # a value so near to sqrt(2) times a power that float32 may take the other one
        return
    y = norm(x)
    y.backward(g)
    dx, dgamma, dbeta = oracle.backward(g.numpy())
    size = float(np.abs(oracle.y).max())
    np.testing.assert_allclose(y.detach().numpy(), like(oracle.y, shape), rtol=1e-5, atol=1e-5 * size)
    np.testing.assert_allclose(x.grad.numpy(), like(dx, shape), rtol=1e-4, atol=1e-5 * np.abs(dx).max())
    np.testing.assert_allclose(norm.weight.grad.numpy(), dgamma, rtol=1e-4, atol=1e-5 * np.abs(g).sum())
    np.testing.assert_allclose(norm.bias.grad.numpy(), dbeta, rtol=1e-4, atol=1e-5 * np.abs(g).sum())
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.125 * oracle.mean, rtol=1e-5, atol=1e-6 * spread)
    np.testing.assert_allclose(norm.running_inverse_std.numpy(), 0.875 + 0.125 * oracle.s, rtol=1e-5)


@every_shape
def test_eval_is_three_float32_operations_of_which_the_product_is_exact(shape):
    norm, x, _ = started(shape, 0)
    for _ in range(20):
        norm(torch.randn(shape) * 3 + 1)
    norm.eval()
    channels = (-1, *[1] * (len(shape) - 2))
    factor = (power(norm.running_inverse_std.double().numpy()) * power(norm.weight.detach().double().numpy())).astype(np.float32)
    assert set(np.abs(np.frexp(factor)[0])) == {0.5}
    centred = x.detach().numpy() - norm.running_mean.numpy().reshape(channels)
    product = centred * factor.reshape(channels)
    np.testing.assert_array_equal(product.astype(np.float64), centred.astype(np.float64) * factor.reshape(channels))
    np.testing.assert_array_equal(norm(x).detach().numpy(), product + norm.bias.detach().numpy().reshape(channels))


def test_running_statistics_approach_the_mean_and_the_mean_of_the_inverse_deviation():
    """The mean of s over batches, which is not the inverse of the mean deviation."""
    norm = lnn.ShiftBatchNorm1d(2)
    wanted = np.array([[0.0, 0.0], [1.0, 1.0]])
    for step in range(60):
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(step)) * (4.0 if step % 2 else 0.25) + 3
        norm(x)
        oracle = Oracle(x.numpy(), [1, 1], [0, 0])
        wanted = 0.875 * wanted + 0.125 * np.stack([oracle.mean, oracle.s])
    np.testing.assert_allclose(norm.running_mean.numpy(), wanted[0], rtol=1e-5)
    np.testing.assert_allclose(norm.running_inverse_std.numpy(), wanted[1], rtol=1e-5)
    norm.reset_running_stats()
    assert norm.running_mean.tolist() == [0, 0]
    assert norm.running_inverse_std.tolist() == [1, 1]


def test_normalized_values_have_about_unit_spread():
    """``AP2`` is off by up to sqrt(2) for the step, and by less on the mean for the variance."""
    norm = lnn.ShiftBatchNorm2d(6)
    y = norm(torch.randn(64, 6, 5, 5) * torch.logspace(-2, 2, 6).reshape(6, 1, 1) + 10)
    spread = y.detach().std((0, 2, 3))
    assert ((spread > 0.5) & (spread < 2)).all()
    assert y.mean((0, 2, 3)).abs().max() < 1e-3


def test_its_state_has_the_four_documented_keys_and_loads():
    norm, x, _ = started((8, 5), 3)
    norm(x)
    assert {key: tuple(value.shape) for key, value in norm.state_dict().items()} == dict.fromkeys(
        ["weight", "bias", "running_mean", "running_inverse_std"], (5,)
    )
    other = lnn.ShiftBatchNorm1d(5)
    other.load_state_dict(norm.state_dict(), strict=True)
    assert torch.equal(other.eval()(x), norm.eval()(x))
    with pytest.raises(RuntimeError, match="running_inverse_std"):
        other.load_state_dict(nn.BatchNorm1d(5).state_dict())
    norm.reset_parameters()
    assert torch.equal(norm.weight, torch.ones(5))


def test_without_affine_factors_it_is_the_same_with_one_and_zero():
    x = torch.randn(8, 5, requires_grad=True)
    plain, ones = lnn.ShiftBatchNorm1d(5, affine=False), lnn.ShiftBatchNorm1d(5)
    (a,), (b,) = (torch.autograd.grad(norm(x).square().sum(), x) for norm in (plain, ones))
    assert torch.equal(a, b)
    assert list(plain.state_dict()) == ["running_mean", "running_inverse_std"]
    assert torch.equal(plain.eval()(x), ones.eval()(x))


def test_in_eval_the_factor_has_the_straight_through_gradient():
    norm, x, g = started((8, 5), 4)
    norm(x.detach())
    norm.eval()(x).backward(g)
    s2, gamma2 = power(norm.running_inverse_std.double().numpy()), power(norm.weight.detach().double().numpy())
    np.testing.assert_allclose(x.grad.numpy(), g.numpy() * s2 * gamma2, rtol=1e-6)
    centred = x.detach().double().numpy() - norm.running_mean.double().numpy()
    np.testing.assert_allclose(norm.weight.grad.numpy(), (g.double().numpy() * centred * s2).sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.bias.grad.numpy(), g.sum(0), rtol=1e-5, atol=1e-6)


@every_shape
def test_constant_channels_and_factors_of_zero_stay_finite(shape):
    norm, x, g = started(shape, 5)
    with torch.no_grad():
        x[:, 0] = 7.0
        norm.weight[1] = 0.0
    y = norm(x)
    y.backward(g)
    assert all(t.isfinite().all() for t in (y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_inverse_std))
    assert torch.equal(y[:, 1], norm.bias[1].expand_as(y[:, 1]))
    assert not x.grad[:, 1].any()
    assert norm.weight.grad[1] != 0


def test_nan_is_not_hidden():
    norm, x, g = started((8, 5), 6)
    with torch.no_grad():
        x[2, 3] = math.nan
    y = norm(x)
    y.backward(g)
    for t in (y, x.grad):
        assert t[:, 3].isnan().all()
        assert t[:, :3].isfinite().all()
    assert norm.running_mean[3].isnan()


@pytest.mark.parametrize("shape", [(1, 5), (0, 5), (1, 5, 1)])
def test_one_value_for_each_channel_is_refused_in_training_as_torch_does(shape):
    norm = lnn.ShiftBatchNorm1d(5)
    with pytest.raises(ShapeError, match=r"more than one value for each channel"):
        norm(torch.zeros(shape))
    assert norm.eval()(torch.zeros(shape)).shape == shape
    if 0 not in shape:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            nn.BatchNorm1d(5)(torch.zeros(shape))


def test_wrong_shapes_and_settings_are_refused_with_what_is_allowed():
    with pytest.raises(ShapeError, match=r"\(N, 5, H, W\), not \(2, 5\)"):
        lnn.ShiftBatchNorm2d(5)(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"\(N, 5\) or \(N, 5, H\), not \(2, 4\)"):
        lnn.ShiftBatchNorm1d(5)(torch.zeros(2, 4))
    for wrong, words in (
        ({"num_features": 0}, "from 1"),
        ({"eps": 0}, "positive"),
        ({"momentum": 2}, "from 0 to 1"),
        ({"momentum": None}, "0 to 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            lnn.ShiftBatchNorm1d(**{"num_features": 3} | wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_shape
def test_statistics_of_narrow_input_are_formed_in_float32(shape, dtype):
    norm, x, g = started(shape, 7)
    with torch.no_grad():
        x += 100  # a mean that a narrow sum would miss
    narrow, wide = x.detach().to(dtype).requires_grad_(), x.detach().to(dtype).float().requires_grad_()
    y = norm(narrow)
    stats = norm.running_mean.clone(), norm.running_inverse_std.clone()
    y.backward(g.to(dtype))
    norm.reset_running_stats()
    z = norm(wide)
    z.backward(g.to(dtype).float())
    assert (y.dtype, narrow.grad.dtype) == (dtype, dtype)
    assert torch.equal(stats[0], norm.running_mean)
    assert torch.equal(stats[1], norm.running_inverse_std)
    assert torch.equal(y, z.to(dtype))
    assert torch.equal(narrow.grad, wide.grad.to(dtype))
    assert norm.eval()(narrow).dtype == dtype


def test_float64_stays_float64():
    norm = lnn.ShiftBatchNorm1d(4).double()
    x = torch.randn(9, 4, dtype=torch.float64)
    oracle = Oracle(x.numpy(), np.ones(4), np.zeros(4))
    np.testing.assert_allclose(norm(x).detach().numpy(), oracle.y, rtol=1e-13, atol=1e-13)


def network(shift):
    norms = (lnn.ShiftBatchNorm2d, lnn.ShiftBatchNorm1d) if shift else (lnn.BatchNorm2d, lnn.BatchNorm1d)
    two = {"weight_quantizer": {"name": "linear", "bits": 2}, "input_quantizer": {"name": "linear", "bits": 2}}
    one = {"weight_quantizer": "sign", "input_quantizer": "sign"}
    torch.manual_seed(0)
    return nn.Sequential(
        lnn.Conv2d(
            3, 8, 3, padding=1, bias=False, weight_quantizer={"name": "linear", "bits": 8}, input_quantizer={"name": "linear", "bits": 8}
        ),
        norms[0](8),
        nn.Hardtanh(),
        lnn.Conv2d(8, 8, 3, bias=False, **two),
        nn.MaxPool2d(2),
        norms[0](8),
        nn.Hardtanh(),
        nn.Flatten(),
        lnn.Linear(32, 12, bias=False, **one),
        norms[1](12),
        nn.Hardtanh(),
        lnn.Linear(12, 4, bias=False, **one),
        norms[1](4),
    )


def settled(seed=0):
    """With statistics and factors of every sign, one of them 0."""
    model = network(shift=True)
    for _ in range(3):
        model(torch.randn(16, 3, 6, 6))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model:
            if isinstance(module, lnn.ShiftBatchNorm1d | lnn.ShiftBatchNorm2d):
                module.weight.normal_(generator=generator)
                module.weight[1] = 0
                module.bias.normal_(generator=generator)
                module.running_inverse_std.uniform_(0.01, 2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("seed", range(4))
def test_an_exported_net_has_equal_codes_and_folds_into_thresholds(seed, tmp_path):
    model, x = settled(seed), torch.randn(32, 3, 6, 6)
    export(model, x, tmp_path / "net.lobit", strict=True)  # all of it is exact
    graph = capture(model, (x,)).graph
    assert verify(model, tmp_path / "net.lobit", torch.randn(50, 3, 6, 6)).ok
    session = Session(graph)
    with torch.no_grad():
        np.testing.assert_array_equal(session(x.numpy()), model(x).numpy())
    assert sum(node.op == "threshold" for node in graph.nodes) == 3  # the three hidden norms
    (last,) = (node for node in graph.nodes if node.output == graph.outputs[0])
    operand = {step.op: graph.constants[last.constants[step.operand]].data for step in last.attrs["steps"] if step.operand}
    size = np.abs(operand["mul"])
    assert set(np.frexp(size[size > 0])[0]) == {0.5}  # powers of two, in the file too


def test_a_compiled_training_step_is_one_graph_and_the_same():
    torch._dynamo.reset()
    model, x = network(shift=True), torch.randn(16, 3, 6, 6)
    results = []
    for each in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        for module in model:
            if isinstance(module, lnn.ShiftBatchNorm1d | lnn.ShiftBatchNorm2d):
                module.reset_running_stats()
        y = each(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters()), *(b.clone() for b in model.buffers())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_on_any_device_is_that_of_the_cpu(device):
    norm, x, g = started((16, 5, 3, 6), 9)
    other = copy.deepcopy(norm).to(device)
    z = x.detach().to(device).requires_grad_()
    norm(x).backward(g)
    other(z).backward(g.to(device))
    for a, b in ((x.grad, z.grad), (norm.weight.grad, other.weight.grad), (norm.running_inverse_std, other.running_inverse_std)):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-4)


def test_under_autocast_it_trains():
    model = network(shift=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x, labels = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 4
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_a_net_with_shift_norms_trains_as_one_with_ordinary_norms_does():
    """Same weights and data; the last losses are alike, and far below chance."""
    last = []
    for shift in (False, True):
        model = network(shift)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        x, labels = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 4
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
        last.append(loss.item())
    assert max(last) < 0.8 * math.log(4)
