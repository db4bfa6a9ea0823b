"""Batches by indexing tensors in memory; their order is a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of a data set in memory.

    Parameters
    ----------
    images : float32 Tensor of shape (N, C, H, W)
    labels : int64 Tensor of shape (N,)
    batch_size : int
    seed : int or None
        Shuffle every epoch, dropping the last batch if it is smaller; None keeps the order and all samples.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int | None = None) -> None:
        self.images, self.labels = images, labels
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.labels), self.batch_size)
        return full + (self.seed is None and rest > 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.seed is None:
            yield from zip(torch.split(self.images, self.batch_size), torch.split(self.labels, self.batch_size), strict=True)
            return
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        for index in torch.split(order, self.batch_size)[: len(self)]:
            yield self.images[index], self.labels[index]
