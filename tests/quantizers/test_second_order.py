"""Gradients of gradients, as penalties need them, and values without bounds: the native loops and PyTorch's operators agree at every size."""

from __future__ import annotations

import math

import pytest
import torch

from lobit.quantizers import fused
from lobit.quantizers.dorefa import dorefa_weights
from lobit.quantizers.learned_range import learned_bits
from lobit.quantizers.straight_through import round_by_step, straight_through

SMALL, LARGE = (64, 63), (64, 64)
assert math.prod(SMALL) < fused.SMALLEST <= math.prod(LARGE)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_penalty_on_a_gradient_has_the_gradient_of_the_formula(shape, rounded):
    torch.manual_seed(0)
    x, w = torch.randn(shape).mul(2).requires_grad_(), torch.randn(shape, requires_grad=True)
    step = torch.tensor(0.25, requires_grad=True)
    v = x / step
    codes = round_by_step(x, step, -4, 3) if rounded else straight_through(x, torch.where(x.detach() >= 0, 1.0, -1.0), -1, 1)
    inside = ((v >= -4) & (v <= 3) if rounded else (x.abs() <= 1)).detach()
    given = [x, step] if rounded else [x]
    found = torch.autograd.grad((codes * w).sum(), given, create_graph=True)
    expected = [w * inside / step, -(w * v * inside).sum() / step] if rounded else [w * inside]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    ends = [w, *given] if rounded else [w]
    second = torch.autograd.grad(sum(g.square().sum() for g in found), ends)
    for a, b in zip(second, torch.autograd.grad(sum(g.square().sum() for g in expected), ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert a.abs().sum() > 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_dorefa_weights_have_the_second_gradient_of_their_formula(bits):
    torch.manual_seed(0)
    n = (1 << bits) - 1
    w, g = torch.randn(5, 7, dtype=torch.float64, requires_grad=True), torch.randn(5, 7, dtype=torch.float64)
    t = w.tanh()
    plain = n * t / t.abs().max()  # with the rounding taken as the identity
    second = []
    for codes in (dorefa_weights(w, bits), plain):
        (first,) = torch.autograd.grad((codes * g).sum(), w, create_graph=True)
        second.append([first, *torch.autograd.grad(first.pow(3).sum(), w)])
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
@pytest.mark.parametrize("by", ["step", "levels"])
def test_a_value_without_bounds_counts_like_any_other_outside_at_every_size(value, by):
    torch.manual_seed(0)
    first = torch.randn(SMALL)
    first[3, 5] = value
    found = []
    for extra in (0, math.prod(LARGE)):  # zeros behind it add nothing to the step's gradient
        x = torch.cat([first.flatten(), torch.zeros(extra)]).requires_grad_()
        step, top = torch.tensor(0.25, requires_grad=True), torch.tensor(0.75, requires_grad=True)
        codes = round_by_step(x, step, -4, 3) if by == "step" else learned_bits(x, step, top, signed=True)
        codes[: first.numel()].nan_to_num(0).sum().backward()
        found.append((x.grad[: first.numel()], step.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
    if not math.isnan(value):
        assert all(g.isfinite().all() for g in found[0])
