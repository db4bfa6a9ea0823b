"""`torch.compile` and `torch.export` see through quantizers and layers."""

from __future__ import annotations

import copy

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


class Branches(nn.Module):
    """Two quantized branches side by side, and what follows reads both."""

    def __init__(self, **settings):
        super().__init__()
        self.left, self.right = lnn.Conv2d(3, 4, 3, padding=1, **settings), lnn.Conv2d(3, 5, 1, **settings)
        self.after = lnn.Conv2d(9, 2, 3, **settings)

    def forward(self, x):
        return self.after(torch.cat([self.left(x), self.right(x)], 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_concatenation_of_branches_trains_as_the_two_halves_of_what_follows(family):
    """``torch.cat`` needs no layer of its own: the sum over both halves is that of the layer, each half with the codes of the whole."""
    weights, activations, bits = family
    torch.manual_seed(0)
    net = Branches(weight_quantizer={"name": weights, "bits": bits}, input_quantizer={"name": activations, "bits": bits})
    x = torch.randn(4, 3, 6, 6)
    net(x)
    for model, training in ((net, True), (torch.compile(net, backend="aot_eager", fullgraph=True), True), (net, False)):
        twin = copy.deepcopy(net.train(training))
        y, expected = model(x), by_halves(twin, x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        found, wanted = (
            torch.autograd.grad(z.square().sum(), [p for p in of.parameters() if p.requires_grad], allow_unused=True)
            for z, of in ((y, net), (expected, twin))
        )
        assert sum(a is not None for a in found) >= 6
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def by_halves(net, x):
    after = net.after
    codes, kernel = after.input_quantizer(torch.cat([net.left(x), net.right(x)], 1)), after.weight_quantizer(after.weight)
    halves = [nn.functional.conv2d(codes.values()[:, part], kernel.values()[:, part]) for part in (slice(0, 4), slice(4, 9))]
    return halves[0] + halves[1] + after.bias.reshape(-1, 1, 1)
