"""Quantizers of gradients: their codes follow the formulas in float64 numpy, and the mean of their values is the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.quantizers import gradients as module
from tests.devices import DEVICES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One form: its levels for k bits and the largest magnitude m, its deterministic rounding, both from the formula; and the share of m that float32 may be off."""

    name: str
    levels: Callable[[int, float], Array]
    nearest: Callable[[Array, int, float], Array]
    slack: float = 1e-6


def odd_levels(bits: int, m: float) -> Array:
    """DoReFa: ``2m (j / n - 1/2)`` for j = 0 .. n."""
    n = 2**bits - 1
    return 2 * m * (np.arange(n + 1) / n - 0.5)


def odd_nearest(g: Array, bits: int, m: float) -> Array:
    n = 2**bits - 1
    return 2 * m * (np.rint(n * np.clip(g / (2 * m) + 0.5, 0, 1)) / n - 0.5)


def linear_levels(bits: int, m: float) -> Array:
    half = 2 ** (bits - 1) - 1
    return m * np.arange(-half, half + 1) / half


def linear_nearest(g: Array, bits: int, m: float) -> Array:
    half = 2 ** (bits - 1) - 1
    return m * np.rint(g / m * half) / half


def log_levels(bits: int, m: float) -> Array:
    """0 and ``2^(k-1) - 1`` powers of two of either sign, the highest the first that is not below m."""
    top = math.ceil(math.log2(m))
    powers = 2.0 ** np.arange(max(top - 2 ** (bits - 1) + 2, -126), top + 1)
    return np.concatenate([-powers[::-1], [0.0], powers])


def log_nearest(g: Array, bits: int, m: float) -> Array:
    with np.errstate(divide="ignore"):
        power = np.sign(g) * 2.0 ** np.rint(np.log2(np.abs(g)))
    return np.where(np.abs(power) < log_levels(bits, m)[-(2 ** (bits - 1) - 1) :].min(), 0, power)


ROWS = [Row("dorefa", odd_levels, odd_nearest), Row("linear", linear_levels, linear_nearest), Row("log", log_levels, log_nearest, 0.0)]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
every_width = pytest.mark.parametrize("bits", range(2, 9))
gradients = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.floats(-8, 8, width=16))


def build(row: Row, bits: int, **settings: Any) -> Any:
    return Q.get({"name": row.name, **settings}, "gradients", bits)


def neighbours(row: Row, bits: int, g: Array) -> tuple[Array, Array]:
    """The levels next to each value of a part, below and above; a level is its own neighbour."""
    m = float(np.abs(g).max())
    levels, slack = row.levels(bits, m), row.slack * m
    above = np.clip(np.searchsorted(levels, g - slack), 0, len(levels) - 1)
    return levels[np.where(levels[above] <= g + slack, above, np.maximum(above - 1, 0))], levels[above]


def samples(g: NDArray[Any], per: str) -> list[NDArray[Any]]:
    """The parts that have a scale of their own."""
    return list(g) if per == "sample" and g.ndim > 1 else [g]


@every_row
@every_width
@pytest.mark.parametrize("per", ["sample", "tensor"])
@settings(max_examples=25)
@given(g=gradients)
def test_each_value_is_a_neighbour_of_its_gradient_among_the_levels(row, bits, per, g):
    values = build(row, bits, scale_per=per)(torch.tensor(g)).values().numpy()
    for part, got in zip(samples(g, per), samples(values, per), strict=True):
        m = float(np.abs(part).max())
        if m == 0:
            assert not got.any()
            continue
        below, above = neighbours(row, bits, part.astype(np.float64))
        close = np.minimum(np.abs(got - below), np.abs(got - above))
        assert (close <= row.slack * m).all(), f"{part} became {got}"


@every_row
@every_width
@pytest.mark.parametrize("per", ["sample", "tensor"])
@settings(max_examples=25)
@given(g=gradients)
def test_without_noise_each_value_is_that_of_the_formula(row, bits, per, g):
    values = build(row, bits, scale_per=per, stochastic=False)(torch.tensor(g)).values().numpy()
    for part, got in zip(samples(g, per), samples(values, per), strict=True):
        m = float(np.abs(part).max())
        if m:
            # float32 cannot tell a tie from its neighbours
            wanted = [row.nearest(part.astype(np.float64) + shift * m, bits, m) for shift in (0, 2e-7, -2e-7)]
            assert np.any([np.abs(got - w) <= row.slack * m for w in wanted], axis=0).all(), f"{part} became {got}, not {wanted[0]}"


def check_mean(row: Row, bits: int, g: torch.Tensor, values: torch.Tensor) -> None:
    """The mean of many roundings is g within 4.5 standard deviations, from the variance ``(g - below) (above - g)`` that rounding to one of two neighbours has."""
    exact = g.double().numpy()
    below, above = neighbours(row, bits, exact)
    deviation = np.sqrt(np.maximum((exact - below) * (above - exact), 0) / len(values))
    off = np.abs(values.double().mean(0).cpu().numpy() - exact)
    assert (off <= 4.5 * deviation + 1e-6 * np.abs(exact).max()).all(), off / deviation


@every_row
@every_width
@pytest.mark.parametrize("per", ["sample", "tensor"])
def test_the_mean_of_the_values_is_the_gradient(row, bits, per):
    torch.manual_seed(bits)
    draws = 20_000
    g = torch.cat([torch.tensor([1.5, -1.5, 0.0, 1e-3, -0.7, 0.75, 0.011]), torch.randn(5)])
    g = g * torch.logspace(0, -4, len(g)) if row.name == "log" else g
    check_mean(row, bits, g, build(row, bits, scale_per=per)(g.expand(draws, len(g))).values())


@every_row
def test_roundings_of_neighbouring_values_are_independent(row):
    torch.manual_seed(0)
    g = torch.full((20_000, 3), 0.3)
    g[:, 0] = 1.0
    errors = build(row, 4)(g).values()[:, 1:] - 0.3
    correlation = float(torch.corrcoef(errors.T)[0, 1])
    assert abs(correlation) <= 4.5 / math.sqrt(20_000)


@every_row
@every_width
@pytest.mark.parametrize("stochastic", [True, False])
def test_codes_are_whole_numbers_of_the_code_type(row, bits, stochastic):
    torch.manual_seed(bits)
    quantizer = build(row, bits, stochastic=stochastic)
    codes = quantizer(torch.randn(7, 999) ** 3).codes
    assert torch.equal(codes, codes.round())
    if row.name == "log" and bits > 4:
        with pytest.raises(ConfigError, match="2 to 4 bits"):
            _ = quantizer.code_type
        size = codes.abs()
        assert set(size.unique().tolist()) <= {0.0, *(2.0**e for e in range(2 ** (bits - 1) - 1))}
    else:
        assert set(codes.unique().tolist()) <= {float(code) for code in quantizer.code_type.levels}
        assert codes.abs().max() == min(quantizer.code_type.hi, -quantizer.code_type.lo)


@every_row
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("per", ["sample", "tensor"])
def test_the_largest_magnitude_is_a_value_and_nothing_lies_beyond(row, bits, per):
    torch.manual_seed(0)
    g = torch.randn(40, 50) * torch.logspace(-6, 3, 40).reshape(40, 1)
    values = build(row, bits, scale_per=per)(g).values()
    reach = g.abs().amax(1) if per == "sample" else g.abs().amax().expand(40)
    reach = torch.exp2(torch.log2(reach).ceil()) if row.name == "log" else reach
    assert (values.abs() <= reach.reshape(40, 1) * (1 + 1e-6)).all()
    if row.name != "log":
        torch.testing.assert_close(values.abs().amax(1)[-1:], reach[-1:], rtol=1e-6, atol=0)


@every_row
@every_width
@pytest.mark.parametrize("last", [False, True])
def test_the_first_and_last_number_of_the_noise_lead_to_no_code_beyond(row, bits, last, monkeypatch):
    """float32 rounds ``v + u`` up to the next whole number where u is as near to 1 as it gets."""

    def noise(like, low, high):
        return torch.full_like(like, float(np.nextafter(np.float32(high), np.float32(low))) if last else low)

    monkeypatch.setattr(module, "_noise", noise)
    g = torch.tensor([1.0, -1.0, 0.0])
    assert build(row, bits)(g).values().abs().max() <= 1 + 1e-6


@every_row
def test_a_scale_for_each_sample_equals_a_loop_and_one_for_the_tensor_does_not(row):
    torch.manual_seed(0)
    g = torch.randn(5, 3, 4) * torch.logspace(0, 3, 5).reshape(5, 1, 1)
    quantizer = build(row, 3, stochastic=False)
    q = quantizer(g)
    assert q.scale.shape == (5, 1, 1)
    for index in range(5):
        alone = quantizer(g[index : index + 1])
        assert torch.equal(q.codes[index], alone.codes[0])
        assert torch.equal(q.scale[index : index + 1], alone.scale)
    whole = build(row, 3, stochastic=False, scale_per="tensor")(g)
    assert whole.scale.shape == ()
    assert not torch.equal(whole.values(), q.values())


@every_row
@pytest.mark.parametrize("per", ["sample", "tensor"])
@pytest.mark.parametrize("stochastic", [True, False])
class TestSpecialGradients:
    """Nothing is hidden, and nothing arises from nothing."""

    def test_all_zero_gradients_stay_zero(self, row, per, stochastic):
        values = build(row, 6, scale_per=per, stochastic=stochastic)(torch.zeros(3, 4)).values()
        assert torch.equal(values, torch.zeros(3, 4))

    def test_a_sample_of_zeros_stays_zero_beside_others(self, row, per, stochastic):
        g = torch.tensor([[0.0, 0.0], [1.0, -0.25]])
        values = build(row, 6, scale_per="sample", stochastic=stochastic)(g).values()
        assert not values[0].any()
        assert values[1].any()

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_makes_its_part_not_finite(self, row, per, stochastic, wrong):
        g = torch.ones(3, 4)
        g[1, 2] = wrong
        values = build(row, 6, scale_per=per, stochastic=stochastic)(g).values()
        assert not values[1, 2].isfinite()
        assert bool(values[0].isfinite().all()) == (per == "sample")

    @pytest.mark.parametrize("shape", [(0, 4), (0,), (3, 0), (0, 2, 3, 3)])
    def test_an_empty_batch_stays_empty(self, row, per, stochastic, shape):
        assert build(row, 6, scale_per=per, stochastic=stochastic)(torch.zeros(shape)).values().shape == shape

    @pytest.mark.parametrize("exponent", [-140, -120, 126])
    def test_gradients_of_any_size_keep_theirs(self, row, per, stochastic, exponent):
        if row.name == "log":
            exponent = max(exponent, -124)  # its powers end at 2^-126, the smallest normal number
        torch.manual_seed(0)
        g = torch.tensor([[1.0, -1.0, 0.5, 0.25]]).expand(2000, 4) * 2.0**exponent
        values = build(row, 8, scale_per=per, stochastic=stochastic)(g).values().double().mean(0) / 2.0**exponent
        np.testing.assert_allclose(values, [1.0, -1.0, 0.5, 0.25], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_row
def test_narrow_gradients_are_rounded_as_float32_is(row, dtype):
    g = torch.randn(16, 33, generator=torch.Generator().manual_seed(1)).to(dtype)
    for stochastic in (True, False):
        quantizer = build(row, 8, stochastic=stochastic)
        torch.manual_seed(5)
        narrow = quantizer(g)
        torch.manual_seed(5)
        wide = quantizer(g.float())
        assert narrow.codes.dtype == narrow.scale.dtype == torch.float32
        assert torch.equal(narrow.values(), wide.values())


@pytest.mark.parametrize("device", DEVICES)
@every_row
def test_codes_on_any_device_are_those_of_the_cpu_and_their_mean_is_the_gradient(row, device):
    g = torch.randn(8, 50, generator=torch.Generator().manual_seed(2)) ** 3
    quantizer = build(row, 6, stochastic=False)
    here, there = quantizer(g), quantizer(g.to(device))
    assert (here.codes != there.codes.cpu()).float().mean() < 0.01  # at ties
    torch.testing.assert_close(here.scale, there.scale.cpu())
    torch.manual_seed(0)
    check_mean(row, 6, g[0], build(row, 6)(g[:1].to(device).expand(20_000, 50)).values())


@every_row
def test_wrong_settings_are_refused_with_what_is_allowed(row):
    with pytest.raises(ConfigError, match=r"2 to 8 bits, not 1"):
        build(row, 1)
    with pytest.raises(ConfigError, match="2 to 8 bits, not 9"):
        build(row, 9)
    with pytest.raises(ConfigError, match="'sample' or 'tensor', not 'channel'"):
        build(row, 6, scale_per="channel")
    with pytest.raises(ConfigError, match="inputs_only .* True or False, not 1"):
        build(row, 6, inputs_only=1)
    with pytest.raises(ConfigError, match="quantizes gradients, not weights"):
        Q.get(build(row, 6), "weights")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("largest", [2.0**126, 2.0**127, 1.5 * 2.0**127, torch.finfo(torch.float32).max])
def test_the_largest_finite_gradients_stay_finite_in_logarithmic_form(bits, largest):
    g = torch.tensor([[largest, -largest, 0.0, 1.0]])
    for stochastic in (False, True):
        found = Q.get({"name": "log", "stochastic": stochastic}, "gradients", bits)(g)
        assert found.scale.isfinite().all()
        values = found.values()
        assert values.isfinite().all()
        assert largest / 2 <= values[0, 0] == -values[0, 1] <= 2.0**127


def test_the_table_has_every_gradient_quantizer():
    assert {row.name for row in ROWS} == set(Q.names("gradients"))


def test_a_gradient_quantizer_prints_its_settings():
    assert str(Q.get({"name": "log", "inputs_only": True}, "gradients", 6)) == (
        "LogGradients(bits=6, scale_per='sample', stochastic, inputs_only)"
    )
