"""AP2 is the nearest power of two on a logarithmic scale, at every exponent and on both sides of every boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lobit.quantizers.ap2 import ap2

BELOW = np.float32(math.sqrt(2))  # the float32 nearest to sqrt(2) is below it
ABOVE = np.nextafter(BELOW, np.float32(2))


def oracle(value):
    """By integers: ``|x| > sqrt(2) 2^e`` is ``x^2 > 2^(2e + 1)``."""
    if value == 0 or not math.isfinite(value):
        return value
    top, bottom = abs(value).as_integer_ratio()
    exponent = math.frexp(value)[1] - 1
    up = top * top > bottom * bottom * 2 ** (2 * exponent + 1) if exponent >= 0 else top * top * 2 ** (-2 * exponent - 1) > bottom * bottom
    return math.copysign(math.ldexp(1.0, exponent + up) if exponent + up < 128 else math.inf, value)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_exponent_on_both_sides_of_the_boundary(sign):
    exponents = np.arange(-126, 128)
    for mantissa in (np.float32(1), BELOW, ABOVE, np.nextafter(np.float32(2), np.float32(0))):
        x = sign * np.ldexp(mantissa, exponents).astype(np.float32)
        assert ap2(torch.from_numpy(x)).tolist() == [oracle(float(value)) for value in x]
        assert [ap2(torch.tensor(value)).item() for value in x[::17]] == [oracle(float(value)) for value in x[::17]]


@given(st.floats(width=32, allow_nan=False))
def test_any_float32(value):
    assert ap2(torch.tensor([value])).item() == oracle(value)


@given(st.floats(width=16, allow_nan=False, allow_infinity=False))
def test_half_precision_rounds_the_same(value):
    for dtype in (torch.float16, torch.float64):
        found = ap2(torch.tensor([value], dtype=dtype))
        assert found.dtype == dtype
        assert found.item() == torch.tensor(oracle(value), dtype=dtype).item()


def test_zero_infinities_and_nan_stay():
    found = ap2(torch.tensor([0.0, math.inf, -math.inf, math.nan]))
    assert found[:3].tolist() == [0.0, math.inf, -math.inf]
    assert found[3].isnan()
