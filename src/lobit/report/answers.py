"""What a network answers: the table of confusions, and the samples worth looking at, each with its picture."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One test image: its place in the test set, what it is, what the network takes it for, and its picture as a ``data:`` address.

    ``ink`` says that the picture is drawn in black on white, which a dark page may invert.
    """

    index: int
    truth: str
    answer: str
    right: bool
    picture: str
    ink: bool


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How many samples of each class (row) are taken for each class (column); int64 of shape (classes, classes)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def most_confused(table: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """The mistakes that are made most often: (class, taken for, times), at most ``limit`` of them."""
    mistakes = table - np.diag(np.diag(table))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    return [
        (int(row), int(column), int(table[row, column]))
        for row, column in zip(*np.unravel_index(order, table.shape), strict=True)
        if mistakes[row, column]
    ]


def order_of_interest(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """All samples: mistakes first, the surest of them ahead; then right answers, the least sure ahead.

    How sure an answer is: the largest logit less the label's for a mistake, less the second largest for a right one.
    """
    top = logits.max(1)
    wrong = logits.argmax(1) != labels
    others = np.sort(logits, 1)[:, -2] if logits.shape[1] > 1 else top
    doubt = np.where(wrong, top - logits[np.arange(len(labels)), labels], others - top)
    return np.lexsort((-doubt, ~wrong))


def samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], logits: NDArray[np.float32], classes: tuple[str, ...], limit: int
) -> list[Sample]:
    """The ``limit`` samples of most interest.

    Parameters
    ----------
    images : uint8 ndarray of shape (N, 1 or 3, H, W)
        Pixels 0 .. 255; 255 of one channel is ink.
    labels : int64 ndarray of shape (N,)
    logits : float32 ndarray of shape (N, classes)
    classes : tuple of str
    limit : int
    """
    answers = logits.argmax(1)
    return [
        Sample(
            int(i), classes[labels[i]], classes[answers[i]], bool(answers[i] == labels[i]), picture_address(images[i]), len(images[i]) == 1
        )
        for i in order_of_interest(logits, labels)[:limit]
    ]


def picture_address(image: NDArray[np.uint8]) -> str:
    """A picture of shape (1 or 3, H, W) as a ``data:`` address of a PNG; one channel is ink on white paper."""
    shown = Image.fromarray(255 - image[0]) if len(image) == 1 else Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    stream = io.BytesIO()
    shown.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
