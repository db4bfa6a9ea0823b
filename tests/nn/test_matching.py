"""Batch norms matched to the float net's: channels come out with its mean and deviation, and a float copy stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lobit
from lobit.errors import ConfigError


def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    for _ in range(5):
        net(torch.randn(32, 3, 8, 8) + 0.3)
    for norm in (net[1], net[4], net[8]):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    return net.eval()


def test_channels_come_out_as_in_the_float_net():
    net, x = make(), torch.randn(64, 3, 8, 8) + 0.3
    low = copy.deepcopy(net)
    lobit.quantize_(low, "W3A4")
    lobit.calibrate(low, [x])
    seen = {}

    def outputs(model, key):
        handles = [
            m.register_forward_hook(lambda _, __, y, n=n: seen.setdefault((key, n), y))
            for n, m in model.named_modules()
            if "Norm" in type(m).__name__
        ]
        with torch.no_grad():
            model(x)
        for handle in handles:
            handle.remove()

    lobit.match_batch_norm(low, net, x)
    outputs(net, "float")
    outputs(low, "low")
    for (key, name), y in seen.items():
        if key == "low":
            z, axes = seen["float", name], [axis for axis in range(y.ndim) if axis != 1]
            torch.testing.assert_close(y.mean(axes), z.mean(axes), rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(y.std(axes), z.std(axes), rtol=1e-3, atol=1e-3)


def test_a_float_copy_keeps_its_statistics_and_its_mode():
    net = make()
    other = copy.deepcopy(net).train()
    lobit.match_batch_norm(other, net, torch.randn(64, 3, 8, 8))
    assert other.training
    assert other[4].training
    for index in (1, 4, 8):
        torch.testing.assert_close(other[index].running_mean, net[index].running_mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other[index].running_var, net[index].running_var, rtol=1e-4, atol=1e-4)


def test_nets_that_are_not_alike_are_refused():
    net = make()
    with pytest.raises(ConfigError, match="'4' is in one of the nets alone"):
        lobit.match_batch_norm(net[:4], net, torch.randn(4, 3, 8, 8))
    with pytest.raises(ConfigError, match="no batch norm"):
        lobit.match_batch_norm(nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(4, 2))
