"""The picture of the concepts page: its numbers are those of a file that is exported and run, and follow from the inputs by the plain formulas."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest

from scripts import concepts_figure as figure


@pytest.fixture(scope="module")
def facts() -> figure.Facts:
    return figure.facts()


def sign(x: float) -> int:
    return 1 if x >= 0 else -1


def test_codes_bits_and_sum_follow_from_the_floats(facts: figure.Facts) -> None:
    x, w = [sign(v) for v in figure.INPUTS], [sign(v) for v in figure.LATENT]
    assert facts.input_codes == x
    assert facts.weight_codes == w
    assert facts.weight_word == sum(1 << i for i, code in enumerate(w) if code > 0)
    assert facts.sum == sum(a * b for a, b in zip(x, w, strict=True))
    assert facts.sum == 8 - 2 * sum(a != b for a, b in zip(x, w, strict=True))


def test_the_threshold_says_what_batch_norm_and_sign_say_of_every_sum(facts: figure.Facts) -> None:
    assert facts.direction == 1
    codes = set()
    for s in range(-8, 9):
        squared = Fraction(str(figure.VARIANCE)) + Fraction(1, 100_000)
        y = Fraction(str(figure.GAMMA)) * (s - Fraction(str(figure.MEAN))) / Fraction(math.sqrt(squared)) + Fraction(str(figure.BETA))
        assert (s >= facts.threshold) == (y >= 0)
        codes.add(sign(float(y)))
    assert codes == {-1, 1}
    assert facts.code == sign(facts.sum - facts.threshold)


def test_batch_norm_is_the_line_of_its_four_numbers(facts: figure.Facts) -> None:
    slope = figure.GAMMA / math.sqrt(figure.VARIANCE + 1e-5)
    assert facts.a == pytest.approx(slope, rel=1e-6)
    assert facts.b == pytest.approx(figure.BETA - figure.MEAN * slope, rel=1e-6)


def test_the_committed_picture_is_what_the_command_draws(facts: figure.Facts) -> None:
    drawn = figure.draw(facts).svg(figure.TITLE)
    assert figure.PICTURE.read_text() == drawn, "run `python -m scripts.concepts_figure` and commit the picture"


def test_the_picture_shows_every_number(facts: figure.Facts) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", figure.PICTURE.read_text())
    for value in (*figure.INPUTS, *figure.LATENT):
        assert f"{value:.2f}".replace("-", "−") in texts
    bits = [text for text in texts if text in ("0", "1")]
    assert len(bits) == 8 * 3 + 1  # inputs, weights, their differences; and the 0 of the scale
    joined = " ".join(texts)
    for spelled in (
        f"P = {(8 - facts.sum) // 2}",
        f"= {facts.sum}",
        f"s ≥ {facts.threshold}",
        f"word {facts.weight_word:#04x}",
        f"{facts.a:.3f}",
    ):
        assert spelled in joined
