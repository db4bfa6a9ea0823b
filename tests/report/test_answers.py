"""Confusions counted one by one, samples in the order that is worth looking at, pictures that decode to what they were."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from lobit.report.answers import confusion, most_confused, order_of_interest, picture_address, samples

LOGITS = np.array([[5, 1, 0], [0, 2, 9], [3, 2.9, 0], [1, 0, 1.5], [0, 7, 0]], np.float32)
LABELS = np.array([0, 1, 0, 0, 1])  # wrong at 1 (by 7) and 3 (by 0.5); right at 0 (by 4), 2 (by 0.1), 4 (by 7)


def decoded(address):
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_confusions_are_counted_by_class_and_answer():
    table = confusion(LABELS, LOGITS.argmax(1), 3)
    assert table.tolist() == [[2, 0, 1], [0, 1, 1], [0, 0, 0]]
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    assert confusion(labels, answers, 4).tolist() == [[int(((labels == i) & (answers == j)).sum()) for j in range(4)] for i in range(4)]


def test_the_most_frequent_mistakes_come_first_and_right_answers_are_none():
    assert most_confused(np.array([[50, 2, 0], [7, 9, 1], [0, 0, 3]]), 2) == [(1, 0, 7), (0, 1, 2)]
    assert most_confused(np.diag([3, 4]), 5) == []


def test_sure_mistakes_come_first_then_doubtful_right_answers():
    assert order_of_interest(LOGITS, LABELS).tolist() == [1, 3, 2, 0, 4]


def test_samples_say_what_they_are_and_what_they_are_taken_for():
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 1, 2, 2)
    first, *_, last = samples(images, LABELS, LOGITS, ("x", "y", "z"), 3)
    assert (first.index, first.truth, first.answer, first.right, first.ink) == (1, "y", "z", False, True)
    assert (last.index, last.truth, last.answer, last.right) == (2, "x", "x", True)
    assert np.array_equal(decoded(first.picture), 255 - images[1, 0])


def test_colour_stays_colour():
    image = np.random.default_rng(1).integers(0, 256, (3, 5, 6), np.uint8)
    assert np.array_equal(decoded(picture_address(image)), image.transpose(1, 2, 0))
