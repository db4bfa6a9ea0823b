"""The tables of sigmoid, tanh and ReLU over 8-bit pre-activations."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch

from lobit.nn.tables import HI, LO, on_grid

ACTIVATIONS = ["sigmoid", "tanh", "relu"]
CODES = torch.arange(LO, HI + 1).double()


def exact(activation, code):
    """In 60 decimal digits, by another formula than the package's."""
    getcontext().prec = 60
    x = Decimal(code) / 16
    if activation == "relu":
        return max(x, Decimal(0))
    if activation == "sigmoid":
        return x.exp() / (x.exp() + 1)
    return ((2 * x).exp() - 1) / ((2 * x).exp() + 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_value_is_the_float32_nearest_to_the_function(activation):
    values = on_grid((CODES / 16).float(), activation)
    for code, value in zip(CODES.long().tolist(), values.tolist(), strict=True):
        want = exact(activation, code)
        gaps = [abs(Decimal(float(other)) - want) for other in (np.nextafter(np.float32(value), np.float32(side)) for side in (-9, 9))]
        assert abs(Decimal(value) - want) < min(gaps), code


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_no_value_hangs_on_the_last_place_of_a_machines_exp(activation):
    """Each lies further from the middle of two floats than 8 units in the last place of float64: no sound `exp` rounds it elsewhere."""
    for code in CODES.long().tolist():
        value = float(exact(activation, code))
        for off in (-8, 8):
            assert np.float32(value + off * math.ulp(value)) == np.float32(value), code


def test_pre_activations_round_half_to_even_and_clamp():
    x = torch.tensor([0.5, 1.5, -0.5, -1.5, 126.5, 127.5, 900.0, torch.inf, -127.5, -128.5, -900.0, -torch.inf]) / 16
    codes = [0, 2, 0, -2, 126, 127, 127, 127, -128, -128, -128, -128]
    assert torch.equal(on_grid(x, "tanh"), on_grid(torch.tensor(codes) / 16, "tanh"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_the_functions_at_the_rounded_value_and_zero_outside(activation):
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64).requires_grad_()
    on_grid(x, activation).sum().backward()
    v = (x.detach() * 16).clamp(LO, HI).round() / 16
    slope = {"sigmoid": v.sigmoid() * (1 - v.sigmoid()), "tanh": 1 - v.tanh() ** 2, "relu": (v > 0).double()}[activation]
    expected = torch.where((x.detach() >= -8) & (x.detach() <= 127 / 16), slope, 0)
    torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_is_the_lowest_code_or_stays_nan(activation):
    x = torch.tensor([torch.nan, 1.0])
    assert torch.equal(on_grid(x, activation)[:1], on_grid(torch.tensor([-8.0]), activation))
    kept = on_grid(x, activation, keep_nan=True)
    assert torch.isnan(kept[0])
    assert torch.equal(kept[1:], on_grid(x[1:], activation))
