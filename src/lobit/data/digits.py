"""Handwritten digits of the UCI repository: 1797 images of 8 x 8, shipped with lobit. Source and licence: DIGITS_LICENSE.md beside this file."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from lobit.data.dataset import DataSet

TEST_PER_CLASS = 36
SPLIT_SEED = 1609


def load_digits() -> DataSet:
    """Read the digits and split them: 36 images of each class for testing (360), the other 1437 for training, always the same ones."""
    with (files("lobit.data") / "digits.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        images, labels = stored["images"].reshape(-1, 1, 8, 8), stored["labels"].astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    chosen = [rng.permutation(np.flatnonzero(labels == digit))[:TEST_PER_CLASS] for digit in range(10)]
    test = np.zeros(len(labels), bool)
    test[np.concatenate(chosen)] = True
    return DataSet("digits", images[~test], labels[~test], images[test], labels[test], 16, tuple("0123456789"))
