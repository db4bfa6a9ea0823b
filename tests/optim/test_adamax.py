"""Shift-based AdaMax against a loop in float64 written from the formulas, in both forms."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lobit.errors import ConfigError
from lobit.optim import ShiftAdaMax, blocks
from lobit.optim.adamax import shift_rate
from tests.devices import DEVICES

FORMS = {"torch": (0.9, 0.999, 2.0**-27, 2.0**-6), "paper": (0.875, 1 - 2.0**-10, 0.0, 2.0**-10)}


def power(x):
    """Powers of two by comparing squares, one number after the other; no logarithm."""
    found = np.zeros_like(x)
    for index, value in np.ndenumerate(x):
        if value:
            exponent = math.frexp(value)[1] - 1
            found[index] = 2.0 ** (exponent + (value * value > 2.0 ** (2 * exponent + 1)))
    return found


def oracle(x, gradients, form, lr, factor=1.0, weight_decay=0.0):
    """The weights after each gradient."""
    b1, b2, eps, _ = FORMS[form]
    x, m, v, after = x.astype(np.float64), np.zeros(x.shape), np.zeros(x.shape), []
    for t, gradient in enumerate(gradients, 1):
        g = gradient.astype(np.float64) + weight_decay * x
        m = b1 * m + (1 - b1) * g
        largest = np.maximum(b2 * v, np.abs(g))
        if form == "torch":
            v = power(largest) + eps
            step = float(power(np.array(lr / (1 - b1**t)))) * factor * m / v
        else:
            v = largest
            shifts = np.divide(1.0, power(v), out=np.zeros_like(v), where=v > 0)
            step = lr * factor * float(power(np.array(1 / (1 - b1**t)))) * m * shifts
        x = x - step
        after.append(x)
    return after


def gradients_of(seed, shape, steps):
    """Magnitudes over many powers of two, a tenth of them zero, and a part that never has a gradient."""
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-20, 4, shape)
    drawn = [(rng.standard_normal(shape) * scale * (rng.random(shape) > 0.1)).astype(np.float32) for _ in range(steps)]
    for gradient in drawn:
        gradient.flat[:3] = 0.0
    return drawn


def run(optimizer_of, start, gradients, device="cpu"):
    parameter = nn.Parameter(torch.from_numpy(start.copy()).to(device))
    optimizer, after = optimizer_of(parameter), []
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient).to(device)
        optimizer.step()
        after.append(parameter.detach().cpu().numpy().copy())
    return after, optimizer


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("form", FORMS)
def test_steps_are_those_of_the_formulas(form, weight_decay, device):
    start = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
    gradients = gradients_of(2, start.shape, 12)
    found, _ = run(lambda p: ShiftAdaMax([p], form=form, weight_decay=weight_decay), start, gradients, device)
    for mine, theirs in zip(found, oracle(start, gradients, form, FORMS[form][3], weight_decay=weight_decay), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_step_factor_is_outside_of_the_rounding_of_the_rate(form):
    """57 is no power of two: AP2(57 lr) would make another step than 57 AP2(lr)."""
    start = np.zeros(6, np.float32)
    gradients = gradients_of(3, start.shape, 4)
    lr, factor = 0.01, 57.03
    group = {"lr": lr * factor, "step_factor": factor}
    found, optimizer = run(lambda p: ShiftAdaMax([{"params": [p], **group}], form=form), start, gradients)
    for mine, theirs in zip(found, oracle(start, gradients, form, lr, factor), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)
    if form == "torch":
        assert math.frexp(shift_rate(optimizer.param_groups[0], 3) / factor)[0] == 0.5


def test_the_norm_of_the_torch_form_is_a_power_of_two_that_never_falls():
    optimizer = run(lambda p: ShiftAdaMax([p]), np.zeros(4, np.float32), [np.full(4, 3.0, np.float32)])[1]
    parameter = optimizer.param_groups[0]["params"][0]
    for _ in range(3000):
        parameter.grad = torch.zeros(4)
        optimizer.step()
    assert optimizer.state[parameter]["exp_inf"].tolist() == [4.0] * 4


@pytest.mark.parametrize("form", FORMS)
def test_weights_without_a_gradient_stay(form):
    start = np.ones(4, np.float32)
    found, _ = run(lambda p: ShiftAdaMax([p], form=form), start, [np.zeros(4, np.float32)] * 3)
    assert (found[-1] == start).all()


@pytest.mark.parametrize("form", FORMS)
def test_blocks_change_nothing(form, monkeypatch):
    """Tensors of all sizes about a block, and one that does not lie in one piece."""
    monkeypatch.setattr(blocks, "BLOCK", 16)
    shapes = [(3,), (16,), (5, 7), (1,), (40,), (4, 4)]
    rng = np.random.default_rng(4)
    starts = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    drawn = [gradients_of(index, shape, 3) for index, shape in enumerate(shapes)]
    parameters = [nn.Parameter(torch.from_numpy(start.copy())) for start in starts]
    parameters[2] = nn.Parameter(torch.from_numpy(starts[2].T.copy()).T)
    assert not parameters[2].is_contiguous()
    optimizer = ShiftAdaMax(parameters, form=form)
    for step in range(3):
        for parameter, gradients in zip(parameters, drawn, strict=True):
            parameter.grad = torch.from_numpy(gradients[step])
        optimizer.step()
    for parameter, start, gradients in zip(parameters, starts, drawn, strict=True):
        alone, _ = run(lambda p: ShiftAdaMax([p], form=form), start, gradients)
        assert (parameter.detach().numpy() == alone[-1]).all()


def test_parameters_that_got_no_gradient_in_some_steps_keep_their_own_count():
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = ShiftAdaMax([a, b])
    for step in range(3):
        a.grad, b.grad = torch.ones(2), torch.ones(2) if step == 2 else None
        optimizer.step()
    assert [optimizer.state[parameter]["step"] for parameter in (a, b)] == [3, 1]
    alone, _ = run(lambda p: ShiftAdaMax([p]), np.zeros(2, np.float32), [np.ones(2, np.float32)])
    assert (b.detach().numpy() == alone[-1]).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_state_goes_on_bit_for_bit(form, tmp_path):
    start, gradients = np.random.default_rng(5).standard_normal(9).astype(np.float32), gradients_of(6, (9,), 8)
    whole, _ = run(lambda p: ShiftAdaMax([p], form=form), start, gradients)
    half, optimizer = run(lambda p: ShiftAdaMax([p], form=form), start, gradients[:4])
    torch.save(optimizer.state_dict(), tmp_path / "state")

    def loaded(parameter):
        other = ShiftAdaMax([parameter], form=form, lr=0.5)
        other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        return other

    rest, _ = run(loaded, half[-1], gradients[4:])
    assert (rest[-1] == whole[-1]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_keep_moments_that_do_not_vanish(dtype):
    parameter = nn.Parameter(torch.ones(8, dtype=dtype))
    optimizer = ShiftAdaMax([parameter])
    parameter.grad = torch.full((8,), 0.3, dtype=dtype)
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg"].dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    # AP2(2^-6 / 0.1) 0.1 0.3 / AP2(0.3)
    assert parameter[0].item() == pytest.approx(1 - 0.125 * 0.03 / 0.25, abs=0.004 if dtype == torch.bfloat16 else 1e-8)


def test_a_gradient_that_is_nan_is_not_hidden_by_the_shifts():
    found, _ = run(lambda p: ShiftAdaMax([p]), np.zeros(2, np.float32), [np.array([np.nan, 1], np.float32)] * 2)
    assert np.isnan(found[-1][0])
    assert np.isfinite(found[-1][1])


def test_schedules_of_the_rate_and_copies_work():
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = ShiftAdaMax([parameter], lr=2.0**-6)
    halved = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    rates = []
    for _ in range(5):
        parameter.grad = torch.ones(3)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        halved.step()
    assert rates == [2.0**-6] * 2 + [2.0**-7] * 2 + [2.0**-8]
    assert copy.deepcopy(optimizer).state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr": 0.0}, "lr of ShiftAdaMax must be above 0, not 0.0"),
        ({"betas": (0.9, 1.0)}, "betas.*below 1"),
        ({"eps": -1.0}, "eps"),
        ({"form": "paper", "eps": 1e-8}, "paper's form, which has none"),
        ({"form": "tensorflow"}, "'torch' or 'paper'"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        ShiftAdaMax([nn.Parameter(torch.zeros(1))], **settings)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="sparse gradient"):
        ShiftAdaMax(table.parameters()).step()
