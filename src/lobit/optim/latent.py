"""Latent weights: the paper's step of each layer, their first values, and their clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from lobit.errors import ConfigError
from lobit.nn import QuantizedLayer, QuantizedWeight, quantized_weights
from lobit.quantizers import Quantizer

StepScale = Literal["glorot", "power-of-two"]


def latent_layers(model: nn.Module) -> Iterator[tuple[QuantizedWeight, tuple[float, float]]]:
    """Weights of layers that are latent, kept in a range by clipping, with their quantizer and that range; a recurrent layer has several."""
    for module in model.modules():
        for layer in quantized_weights(module):
            if layer.weight_quantizer.latent_range is not None:
                yield layer, layer.weight_quantizer.latent_range


def check_step_scale(step_scale: str | None) -> None:
    """Refuse an unknown step scale."""
    if step_scale not in (None, "glorot", "power-of-two"):
        raise ConfigError(f"step_scale must be 'glorot', 'power-of-two' or None, not {step_scale!r}")


def step_factor(layer: QuantizedLayer | QuantizedWeight, step_scale: StepScale) -> float:
    """The factor of a layer's step: ``1 / sqrt(1.5 / (fan_in + fan_out))``, or the power of two nearest to it.

    ``fan_in = kh kw C_in``, ``fan_out = kh kw C_out``: 57.0 for 784 -> 4096 inputs.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061; the released Theano code (glorot) and Torch code (power of two).
    """
    out, *rest = layer.weight.shape
    area = math.prod(rest[1:])
    factor = 1.0 / math.sqrt(1.5 / (rest[0] * area + out * area))
    return factor if step_scale == "glorot" else float(2.0 ** round(math.log2(factor)))


@torch.no_grad()
def clip_latent_weights(model: nn.Module) -> None:
    """Clip latent weights to the range of their quantizer, and keep learned steps positive; call it after every step."""
    for layer, (low, high) in latent_layers(model):
        layer.weight.clamp_(low, high)
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.keep_in_range()


def init_latent_weights(model: nn.Module) -> None:
    """Draw latent weights from Uniform(-1, 1), as the paper's code does."""
    for layer, (low, high) in latent_layers(model):
        nn.init.uniform_(layer.weight, low, high)
