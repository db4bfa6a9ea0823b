"""Small convolutional nets: ordinary float models that `quantize_` makes low-bit, first and last layer with 8 bits."""

from __future__ import annotations

from torch import nn

from lobit.bits import Bits
from lobit.convert import quantize_
from lobit.models.registry import register


def _conv(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
    """Conv 3x3, max pooling if asked for, batch norm, ReLU."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *pooling, nn.BatchNorm2d(outputs), nn.ReLU()]


def _head(inputs: int, hidden: int) -> list[nn.Module]:
    """Flatten, a linear layer with batch norm and ReLU, and the logits."""
    return [nn.Flatten(), nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10)]


def _finished(bits: Bits, *layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*layers)
    if not bits.is_float:
        quantize_(model, bits)
    return model


@register(
    "digits-convnet", input_shape=(1, 8, 8), num_classes=10, description="a small net for 8 x 8 digits in [0, 1], made low-bit by quantize_"
)
def digits_convnet(bits: Bits, *, width: int = 32) -> nn.Module:
    """Two convolutions, pooled once, and two linear layers."""
    return _finished(bits, *_conv(1, width, pool=False), *_conv(width, 2 * width, pool=True), *_head(2 * width * 16, 4 * width))


@register(
    "mnist-convnet-small",
    input_shape=(1, 28, 28),
    num_classes=10,
    description="a small net for 28 x 28 images in [0, 1], made low-bit by quantize_",
)
def mnist_convnet_small(bits: Bits, *, width: int = 16) -> nn.Module:
    """Two convolutions, each pooled, and two linear layers; 106 thousand weights at width 16."""
    return _finished(bits, *_conv(1, width, pool=True), *_conv(width, 2 * width, pool=True), *_head(2 * width * 49, 4 * width))
