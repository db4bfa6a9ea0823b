"""`torch.compile` and `torch.export` see through quantizers and layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit import nn as lnn

FAMILIES = [("lsq", "lsq", 2), ("dorefa", "dorefa", 3), ("linear", "linear", 1), ("magnitude_sign", "lsq", 1)]


def started(weights, activations, bits):
    torch.manual_seed(0)
    settings = {"weight_quantizer": {"name": weights, "bits": bits}, "input_quantizer": {"name": activations, "bits": bits}}
    net = nn.Sequential(
        lnn.Conv2d(3, 8, 3, padding=1, **settings), lnn.BatchNorm2d(8), lnn.AvgPool2d(2), nn.Flatten(), lnn.Linear(32, 5, **settings)
    )
    net(torch.randn(8, 3, 4, 4))
    return net


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_training_step_is_one_graph_and_the_same(family):
    net, x = started(*family), torch.randn(8, 3, 4, 4)
    net[1].momentum = 0.0
    results = []
    for model in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        net.zero_grad()
        y = model(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_exported_program_gives_the_same_bits(family):
    net, x = started(*family).eval(), torch.randn(6, 3, 4, 4)
    program = torch.export.export(net, (x,), strict=False)
    assert torch.equal(program.module()(x), net(x))
