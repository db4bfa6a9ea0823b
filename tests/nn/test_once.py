"""Gradients of gradients: refused in words where a step is one operation, and right where `torch.func` takes it operator by operator."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from lobit import nn as lnn
from lobit.convert import quantize_
from lobit.errors import ConfigError

LSQ4 = {"name": "lsq", "bits": 4}
SIDES = {"weight_quantizer": LSQ4, "input_quantizer": LSQ4}


class Sequence(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x, x)[0] if isinstance(self.inner, nn.MultiheadAttention | lnn.MultiheadAttention) else self.inner(x)[0]


def attention():
    net = Sequence(nn.MultiheadAttention(8, 2, batch_first=True))
    quantize_(net, "W4A4", first="W4A4", last="W4A4")
    return net


ONE_OPERATION = {
    "linear": (lambda: lnn.Linear(6, 4, **SIDES), (3, 6)),
    "conv2d": (lambda: lnn.Conv2d(2, 4, 3, **SIDES), (2, 2, 6, 6)),
    "lstm": (lambda: Sequence(lnn.LSTM(6, 4, batch_first=True, **SIDES, hidden_quantizer=LSQ4)), (2, 3, 6)),
    "attention": (attention, (2, 3, 8)),
    "gradients": (lambda: lnn.Linear(6, 4, gradient_quantizer={"name": "linear", "bits": 4}), (3, 6)),
    "inputs_only": (lambda: lnn.Linear(6, 4, gradient_quantizer={"name": "linear", "bits": 4, "inputs_only": True}), (3, 6)),
    "shift batch norm": (lambda: lnn.ShiftBatchNorm1d(6), (5, 6)),
}


def penalized(net, x, ends):
    first = torch.autograd.grad(net(x).square().sum(), ends, create_graph=True, allow_unused=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first if g is not None), ends, allow_unused=True)


@pytest.mark.parametrize("name", ONE_OPERATION)
@pytest.mark.parametrize("by", ["one input", "all"])
def test_the_derivative_of_a_gradient_is_refused_and_never_dropped(name, by):
    torch.manual_seed(0)
    make, shape = ONE_OPERATION[name]
    net, x = make(), torch.randn(shape, requires_grad=True)
    net(x).sum().backward()  # the plain step is as ever
    ends = [x] if by == "one input" else [x, *(p for p in net.parameters() if p.requires_grad)]
    with pytest.raises(ConfigError, match="create_graph=True"):
        penalized(net, x, ends)


@pytest.mark.parametrize("name", ["gradients", "inputs_only", "shift batch norm"])
def test_what_has_no_derivative_is_refused_under_functional_transforms_too(name):
    torch.manual_seed(0)
    make, shape = ONE_OPERATION[name]
    net, x = make(), torch.randn(shape)
    net(x)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    run = lambda x: functional_call(net, {k: v.detach().clone() for k, v in state.items()}, (x,)).square().sum()  # noqa: E731
    assert grad(run)(x).isfinite().all()
    with pytest.raises(ConfigError, match="create_graph=True"):
        grad(lambda x: grad(run)(x).square().sum())(x)


def test_a_penalty_on_gradients_by_functional_transforms_is_that_of_the_formula():
    torch.manual_seed(0)
    layer, x = lnn.Linear(6, 4, **SIDES), torch.randn(5, 6)
    layer(x)
    steps = layer.weight_quantizer.step.detach(), layer.input_quantizer.step.detach()
    others = {k: v.detach() for k, v in layer.named_parameters() if k not in ("weight", "bias")}

    def by_formula(weight, bias, x):
        rounded = []
        for v, step, code in (
            (x, steps[1], layer.input_quantizer.code_type),
            (weight, steps[0], layer.weight_quantizer.code_type),
        ):
            v = (v / step).clamp(code.lo, code.hi)
            rounded.append((v + (v.round() - v).detach()) * step)
        return nn.functional.linear(rounded[0], rounded[1], bias)

    def by_layer(weight, bias, x):
        return functional_call(layer, {**others, "weight": weight, "bias": bias}, (x,))

    given = layer.weight.detach(), layer.bias.detach(), x
    found = []
    for run in (by_layer, by_formula):
        loss = lambda w, b, x, run=run: run(w, b, x).pow(2).sum()  # noqa: E731
        penalty = lambda w, b, x, loss=loss: sum(g.square().sum() for g in grad(loss, (0, 1, 2))(w, b, x))  # noqa: E731
        found.append(grad(penalty, (0, 1, 2))(*given))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
        assert a.abs().sum() > 0
