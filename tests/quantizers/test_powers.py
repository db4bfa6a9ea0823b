"""Powers of two are exact: compared with whole-number arithmetic on the bits of fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lobit.quantizers import ap2
from lobit.quantizers.powers import floor_power

SMALLEST = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


ROOT = {torch.float32: Fraction(float(np.sqrt(np.float32(2)))), torch.float64: Fraction(math.sqrt(2))}


def exact_ap2(x: float, dtype: torch.dtype) -> float:
    """By fractions: ``2^e <= |x| < 2^(e+1)``, and up from the dtype's ``sqrt(2) 2^e`` on."""
    if x == 0:
        return 0.0
    size = abs(Fraction(x))
    e = math.frexp(x)[1] - 1
    assert Fraction(2) ** e <= size < Fraction(2) ** (e + 1)
    return math.copysign(2.0 ** (e + (size >= ROOT[dtype] * Fraction(2) ** e)), x)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False, max_value=2.0**127, min_value=-(2.0**127)))
def test_ap2_is_the_power_nearest_by_ratio(x):
    for dtype in (torch.float32, torch.float64):
        assert ap2(torch.tensor(x, dtype=dtype)).item() == exact_ap2(x, dtype)
    size = floor_power(torch.tensor(x)).item()
    assert size == (math.copysign(2.0 ** (math.frexp(x)[1] - 1), x) if x else 0.0)


@pytest.mark.parametrize("dtype", SMALLEST)
def test_ap2_turns_at_the_square_root_of_two_and_nowhere_else(dtype):
    kind = np.float32 if dtype == torch.float32 else np.float64
    root = kind(math.sqrt(2))
    around = [root, np.nextafter(root, kind(0)), np.nextafter(root, kind(9)), np.nextafter(kind(2), kind(0)), kind(1)]
    x = torch.tensor(np.array([*around, *(-v for v in around)]), dtype=dtype)
    assert ap2(x).tolist() == [exact_ap2(v, dtype) for v in x.double().tolist()]
    assert len({abs(v) for v in ap2(x).tolist()}) == 2


@pytest.mark.parametrize("dtype", SMALLEST)
def test_ap2_at_the_ends_of_the_range(dtype):
    smallest = SMALLEST[dtype]
    x = torch.tensor([0.0, -0.0, smallest, smallest / 4, -smallest * 0.9, math.inf, -math.inf, math.nan], dtype=dtype)
    y = ap2(x)
    assert y[:7].tolist() == [0.0, 0.0, smallest, 0.0, -smallest, math.inf, -math.inf]
    assert y[7].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ap2_of_narrow_floats_is_that_of_float32(dtype):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(ap2(x), ap2(x.float()).to(dtype))
    assert ap2(x).dtype == dtype


def test_ap2_takes_views_and_tensors_without_axes_and_leaves_them_as_they_are():
    x = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(ap2(x.T[1:]), ap2(x).T[1:])
    assert ap2(x[0, 3].expand(2, 2)).tolist() == [[4.0, 4.0]] * 2
    assert torch.equal(x, torch.arange(12.0).reshape(3, 4))
    assert not ap2(torch.ones(2, requires_grad=True)).requires_grad
