"""The passes round to powers of two as the engine does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit.bits import CodeType
from lobit.capture.passes.arithmetic import to_codes
from tests.runtime.powers import CODES, boundaries, expected


@pytest.mark.parametrize("code", CODES, ids=str)
def test_every_boundary_is_rounded_as_defined(code: CodeType) -> None:
    x = boundaries()
    assert to_codes(x, code, 0).tolist() == [expected(float(value), code) for value in x]


@settings(max_examples=50)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=300))
def test_any_float_is_rounded_as_defined(bits: list[int]) -> None:
    x = np.array(bits, np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    for code in CODES:
        assert to_codes(x, code, 0).tolist() == [expected(float(value), code) for value in x]
