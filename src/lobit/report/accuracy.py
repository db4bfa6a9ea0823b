"""How often a network is right on a test set: in all, class by class, and what it takes for what. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.data import DataSet
from lobit.errors import ConfigError

TOP = 5
TOP_FROM = 10
"""The share of images whose class is among the best five says something from this many classes on."""
CONFUSIONS = 10
WARM_UP = 8
"""Images that run ahead of the timing."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: its images, and how many of them were taken for it."""

    label: str
    images: int
    correct: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of one class were taken for another."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What one network made of a test set.

    Parameters
    ----------
    net : str
        ``"packed"`` or ``"PyTorch"``.
    images, correct : int
    top5 : int or None
        Images whose class is among the five best scores; None for fewer than ten classes.
    loss : float or None
        Mean loss in eval mode: cross-entropy of ``logits``, squared hinge of ``margins``; None where the meaning of the scores is not known.
    classes : tuple of ClassRow
    confusions : tuple of Confusion
        The most frequent ones, at most ten.
    images_per_second : float
        Of the network's calls alone, without the scaling of the pixels.
    """

    net: str
    images: int
    correct: int
    top5: int | None
    loss: float | None
    classes: tuple[ClassRow, ...]
    confusions: tuple[Confusion, ...]
    images_per_second: float

    @property
    def accuracy(self) -> float:
        """Share of the images that are right."""
        return self.correct / self.images


def measure(
    net: str,
    run: Run,
    data: DataSet,
    low: float,
    high: float,
    *,
    scores: str = "",
    batch: int = 1000,
    progress: Progress | None = None,
) -> Accuracy:
    """Run a network on the test set of ``data``, batch by batch.

    Parameters
    ----------
    net : str
        A name for the result.
    run : callable
        From float32 images ``(N, C, H, W)`` to scores ``(N, classes)``.
    data : DataSet
    low, high : float
        The range that pixels are mapped to.
    scores : {"", "logits", "margins"}
        What the outputs are, for the loss.
    batch : int
    progress : callable, optional
        Called with the number of images done and of all.

    Raises
    ------
    ConfigError
        For a batch below one.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    count = len(data.classes)
    table = np.zeros((count, count), np.int64)
    seconds, loss, top = 0.0, 0.0, 0
    run(data.scale(data.test_images[:WARM_UP], low, high))
    for start in range(0, len(data.test_labels), batch):
        x = data.scale(data.test_images[start : start + batch], low, high)
        labels = data.test_labels[start : start + batch]
        before = time.perf_counter()
        found = run(x)
        seconds += time.perf_counter() - before
        np.add.at(table, (labels, found.argmax(1)), 1)
        top += int((_rank(found, labels) < TOP).sum())
        loss += float(_losses(found.astype(np.float64), labels, scores).sum())
        if progress is not None:
            progress(start + len(labels), len(data.test_labels))
    images = len(data.test_labels)
    return Accuracy(
        net,
        images,
        int(np.trace(table)),
        top if count >= TOP_FROM else None,
        loss / images if scores else None,
        tuple(ClassRow(label, int(row.sum()), int(row[index])) for index, (label, row) in enumerate(zip(data.classes, table, strict=True))),
        _confusions(table, data.classes),
        images / seconds if seconds else 0.0,
    )


def _rank(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the label's score, from 0; of equal scores the first index comes first, as argmax has it."""
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    place: NDArray[np.int64] = ((scores > own) | ((scores == own) & earlier)).sum(1)
    return place


def _losses(scores: NDArray[np.float64], labels: NDArray[np.int64], kind: str) -> NDArray[np.float64]:
    """The loss of each image, as `lobit.nn.SquaredHingeLoss` and PyTorch's cross-entropy have it."""
    if kind == "logits":
        most = scores.max(1, keepdims=True)
        losses: NDArray[np.float64] = np.log(np.exp(scores - most).sum(1)) + most[:, 0] - scores[np.arange(len(labels)), labels]
        return losses
    if kind == "margins":
        signs = np.where(np.arange(scores.shape[1])[None, :] == labels[:, None], 1.0, -1.0)
        hinge: NDArray[np.float64] = (np.maximum(1.0 - signs * scores, 0.0) ** 2).mean(1)
        return hinge
    return np.zeros(len(labels))


def _confusions(table: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[Confusion, ...]:
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return tuple(Confusion(classes[i], classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j])
