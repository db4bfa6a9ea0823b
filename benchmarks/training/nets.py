"""The float nets that are trained: plain PyTorch, with a batch of data each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """A net, a batch for it, and the number of classes that it tells apart."""

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]


def convnet() -> nn.Module:
    """The paper's CIFAR-10 net as a float user writes it: (2 x 128C3) - MP2 - (2 x 256C3) - MP2 - (2 x 512C3) - MP2 - (2 x 1024FC) - 10."""
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate((128, 128, 256, 256, 512, 512)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), *([nn.MaxPool2d(2)] if index % 2 else [])]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    layers.append(nn.Flatten())
    for inputs in (8192, 1024):
        layers += [nn.Linear(inputs, 1024, bias=False), nn.BatchNorm1d(1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU after the sum."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.skip(x))


def resnet18() -> nn.Module:
    """ResNet-18 for 224 x 224 images and 1000 classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, width, stride), Block(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class LanguageModel(nn.Module):
    """Embedding, a two-layer LSTM of 650 units, and the logits of 10,000 words."""

    def __init__(self, words: int = 10_000, units: int = 650) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, units)
        self.lstm = nn.LSTM(units, units, 2)
        self.head = nn.Linear(units, words)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (steps * batch, words) for int64 words of shape (steps, batch)."""
        y, _ = self.lstm(self.embedding(x))
        return self.head(y.flatten(0, 1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """The two-layer LSTM alone."""

    def __init__(self, units: int = 650) -> None:
        super().__init__()
        self.lstm = nn.LSTM(units, units, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of shape (steps * batch, units)."""
        y, _ = self.lstm(x)
        return y.flatten(0, 1)  # type: ignore[no-any-return]


def images(batch: int, size: int, classes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random images with labels."""
    return lambda: (torch.rand(batch, 3, size, size), torch.randint(classes, (batch,)))


def words(batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Random words and their successors."""
    text = torch.randint(10_000, (steps + 1, batch))
    return text[:-1], text[1:].flatten()


TASKS = {
    task.name: task
    for task in (
        Task("cifar10-convnet", convnet, images(64, 32, 10)),
        Task("resnet18", resnet18, images(8, 224, 1000)),
        Task("lstm-lm", LanguageModel, lambda: words(20, 35)),
        Task("lstm", Recurrent, lambda: (torch.randn(35, 20, 650), torch.randint(650, (700,)))),
    )
}
