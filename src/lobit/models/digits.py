"""A small convolutional net for the shipped digits: an ordinary float model that `quantize_` makes low-bit."""

from __future__ import annotations

from torch import nn

from lobit.bits import Bits
from lobit.convert import quantize_
from lobit.models.registry import register


@register(
    "digits-convnet", input_shape=(1, 8, 8), num_classes=10, description="a small net for 8 x 8 digits in [0, 1], made low-bit by quantize_"
)
def digits_convnet(bits: Bits, *, width: int = 32) -> nn.Module:
    """Conv 3x3, batch norm, ReLU, twice, with max pooling; then two linear layers."""
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 4 * width, bias=False),
        nn.BatchNorm1d(4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, 10),
    )
    if not bits.is_float:
        quantize_(model, bits)
    return model
