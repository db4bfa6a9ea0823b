"""What a data set is: images and labels in memory, as stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DataSet:
    """Images and labels of a training and a test set.

    Parameters
    ----------
    name : str
    train_images, test_images : uint8 ndarray of shape (N, C, H, W)
        Pixels 0 .. ``white``.
    train_labels, test_labels : int64 ndarray of shape (N,)
    white : int
        The largest pixel value.
    classes : tuple of str
        Names by label.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    white: int
    classes: tuple[str, ...]

    def scale(self, images: NDArray[np.uint8], low: float, high: float) -> NDArray[np.float32]:
        """Map pixels to float32 in ``low .. high``: ``low + (high - low) * pixel / white``, through a table of all pixel values."""
        table = (low + (high - low) * np.arange(self.white + 1, dtype=np.float64) / self.white).astype(np.float32)
        return table[images]
