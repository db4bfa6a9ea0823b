from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.bits import Bits, CodeType
from lobit.errors import ConfigError

width = st.one_of(st.integers(1, 8), st.just(32))


@given(width, width, st.one_of(st.integers(2, 8), st.just(32)))
def test_bits_survive_their_text(weights: int, activations: int, gradients: int) -> None:
    bits = Bits(weights, activations, gradients)
    assert Bits.parse(str(bits)) == bits
    assert Bits.parse(str(bits).lower()) == bits
    assert Bits.parse(bits) is bits


@pytest.mark.parametrize(("text", "expected"), [("W1", (1, 32, 32)), ("A2", (32, 2, 32)), ("G6", (32, 32, 6)), ("W8A4G2", (8, 4, 2))])
def test_a_missing_letter_is_float(text: str, expected: tuple[int, int, int]) -> None:
    assert Bits.parse(text) == Bits(*expected)


@pytest.mark.parametrize("text", ["", "W", "W9", "W0A1", "A1W1", "W1A1G1", "W16", "1", "W1 A1", "W1A1x", "W-1"])
def test_a_text_that_is_no_bit_setting_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ConfigError):
        Bits.parse(text)


@pytest.mark.parametrize("value", [True, 1.0, None, "1"])
def test_a_width_is_an_integer(value: object) -> None:
    with pytest.raises(ConfigError, match="bits"):
        Bits(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        (CodeType("unsigned", 2), (0, 1, 2, 3)),
        (CodeType("signed", 2), (-2, -1, 0, 1)),
        (CodeType("odd", 1), (-1, 1)),
        (CodeType("odd", 2), (-3, -1, 1, 3)),
        (CodeType("ternary", 2), (-1, 0, 1)),
        (CodeType("log2", 2), (-1, 0, 1)),
        (CodeType("log2", 3), (-4, -2, -1, 0, 1, 2, 4)),
        (CodeType("log2", 4), (-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_levels_by_hand(code: CodeType, levels: tuple[int, ...]) -> None:
    assert code.levels == levels
    assert (code.lo, code.hi) == (levels[0], levels[-1])
    assert code.has_zero is (0 in levels)
    assert code.max_abs == max(map(abs, levels))
