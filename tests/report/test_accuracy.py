"""Accuracy against sums by hand, and PyTorch's own losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lobit.data import load_data
from lobit.errors import ConfigError
from lobit.nn import SquaredHingeLoss
from lobit.report.accuracy import measure

DIGITS = load_data("digits")
LABELS = DIGITS.test_labels
SCORES = np.random.default_rng(5).normal(size=(len(LABELS), 10)).astype(np.float32)
SCORES[np.arange(len(LABELS)), LABELS] += 1.5


class Replay:
    """Hands out rows of scores in order; the warm-up is the first call."""

    def __init__(self):
        self.at = None

    def __call__(self, x):
        if self.at is None:
            self.at = 0
            return SCORES[: len(x)]
        self.at += len(x)
        return SCORES[self.at - len(x) : self.at]


@pytest.mark.parametrize("batch", [1, 7, 360, 1000])
@pytest.mark.parametrize("scores", ["", "logits", "margins"])
def test_figures_are_those_of_plain_sums_whatever_the_batch(batch, scores):
    found = measure("packed", Replay(), DIGITS, 0, 1, scores=scores, batch=batch)
    predicted = SCORES.argmax(1)
    assert found.correct == (predicted == LABELS).sum()
    assert found.top5 == sum(label in np.argsort(-row)[:5] for row, label in zip(SCORES, LABELS, strict=True))
    assert [(row.images, row.correct) for row in found.classes] == [(36, int(((predicted == c) & (c == LABELS)).sum())) for c in range(10)]
    pairs = {(i, j): int(((i == LABELS) & (predicted == j)).sum()) for i in range(10) for j in range(10) if i != j}
    assert [row.count for row in found.confusions] == sorted(pairs.values(), reverse=True)[:10]
    assert all(pairs[int(row.label), int(row.predicted)] == row.count for row in found.confusions)
    ours, labels = torch.from_numpy(SCORES).double(), torch.from_numpy(LABELS)
    wanted = {"": None, "logits": F.cross_entropy(ours, labels), "margins": SquaredHingeLoss()(ours, labels)}[scores]
    assert found.loss is None if wanted is None else found.loss == pytest.approx(float(wanted), rel=1e-12)


def test_a_batch_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        measure("packed", Replay(), DIGITS, 0, 1, batch=0)
