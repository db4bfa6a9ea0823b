"""Activations of two slopes: the same numbers as PyTorch's; those without a place in the graph are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit.capture import export, verify
from lobit.errors import ExportError
from lobit.runtime import load
from tests.capture.nets import settle

CORNERS = [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, -1.1754944e-38, 3e38, -3e38, 1.0, -1.0, 0.1, -0.1]


class Net(nn.Module):
    """The activation on the input itself, and ahead of a quantized layer."""

    alone = False

    def __init__(self, activation):
        super().__init__()
        self.activation, self.conv, self.head = activation, nn.Conv2d(3, 3, 2), nn.Linear(3 * 2 * 3, 4)

    def forward(self, x):
        y = self.activation(x)
        z = self.head(self.activation(self.conv(y)).flatten(1))
        return (y, z) if self.alone else z


def prelu(slopes):
    module = nn.PReLU(len(slopes))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(slopes))
    return module


ACTIVATIONS = {
    "one slope": prelu([0.25]),
    "a slope for each channel": prelu([0.25, -1.5, 0.0]),
    "leaky": nn.LeakyReLU(0.1),
    "leaky beyond one": lambda x: F.leaky_relu(x, 3.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_two_slopes_give_pytorchs_numbers(name, tmp_path):
    model = Net(ACTIVATIONS[name])
    lobit.quantize_(model, {"conv": "W4A4", "head": "W4A4"})
    settle(model, (3, 3, 4), 0)
    model.alone = True
    x = torch.randn(9, 3, 3, 4)
    x[0] = torch.tensor(CORNERS).reshape(3, 4)
    report = export(model, x[1:], tmp_path / "net.lobit", strict=True)
    assert not report.inexact
    for isa in lobit.runtime.isas():
        session = load(tmp_path / "net.lobit", isa=isa)
        assert verify(model, session, x[1:]).ok
        np.testing.assert_array_equal(session(x.numpy())[0], ACTIVATIONS[name](x).detach().numpy())  # zeros of either sign are equal


@pytest.mark.parametrize("activation", [F.silu, F.gelu, F.hardswish, torch.sigmoid, torch.tanh], ids=lambda f: f.__name__)
def test_other_activations_are_refused_by_name(activation, tmp_path):
    model = Net(activation)
    lobit.quantize_(model, "W4A4")
    settle(model, (3, 3, 4), 0)
    with pytest.raises(ExportError, match=f"{activation.__name__}.*no place"):
        export(model, torch.randn(2, 3, 3, 4), tmp_path / "net.lobit")
