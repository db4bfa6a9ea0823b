"""Ternary codes: weights -1, 0 and +1 times a scale, and random ones whose mean is the value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_flag, constant, wide
from lobit.quantizers.magnitude_sign import slope_of
from lobit.quantizers.registry import register
from lobit.quantizers.straight_through import round_in_range, straight_through

TERNARY = CodeType(Alphabet.TERNARY, 2)
TWN_THRESHOLD = 0.7


def ternary(w: Tensor, threshold: float = TWN_THRESHOLD, *, per_channel: bool = True) -> tuple[Tensor, Tensor]:
    """Codes and scale of ternary weight networks.

    Forward, with ``m = mean |w|``: ``codes = sign(w) * 1[|w| > threshold * m]``, and ``scale`` is the mean of the magnitudes above the threshold.
    Backward: ``g_w = g / scale``, so that the value ``scale * codes`` has slope 1 in ``w``; the scale is taken as a constant.

    Parameters
    ----------
    w : Tensor
        Of shape ``(O, ..)``.
    threshold : float
        In units of the mean magnitude; the paper's 0.7 is nearly the best for uniform and normal weights.
    per_channel : bool
        Whether each output channel has a threshold and a scale of its own, of shape ``(O, 1, ..)``; else one for the tensor, of shape ``()``.

    References
    ----------
    Li et al., Ternary Weight Networks, arXiv 1605.04711, equations 3, 5 and 6.
    """
    axes = tuple(range(1 if per_channel else 0, w.ndim))
    magnitude = wide(w.detach()).abs()
    kept = magnitude > threshold * magnitude.mean(axes, keepdim=per_channel)
    total = magnitude.mul_(kept).sum(axes, keepdim=per_channel)
    scale = (total / kept.sum(axes, keepdim=per_channel).clamp_(min=1)).float()
    return straight_through(w, w.detach().sign() * kept, slope=slope_of(scale)), scale


def stochastic_ternary(x: Tensor, *, clip: bool = True) -> Tensor:
    """Random codes -1, 0 and +1 whose mean is ``clip(x, -1, 1)``.

    Forward: ``sign(x)`` with probability ``min(|x|, 1)``, else 0. Backward: ``g_x = g * 1[|x| <= 1]``, the derivative of the mean, or ``g`` everywhere
    without ``clip``: for weights, which are kept in range by clipping their latent values.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    clip : bool
        Whether the gradient is cut outside of [-1, 1].

    References
    ----------
    Lin et al., Neural Networks with Few Multiplications, arXiv 1510.03009, section 3.2 (ternary connect).
    """
    v = x.detach()
    codes = v.sign() * (torch.rand_like(v) < v.abs())
    return straight_through(x, codes, -1.0, 1.0) if clip else straight_through(x, codes)


def check_two_bits(bits: int, alias: str) -> None:
    """Refuse a width of ternary codes other than 2."""
    if type(bits) is not int or bits != 2:
        raise ConfigError(f"quantizer {alias!r} has 2 bits, not {bits!r}; for other widths use 'lsq', 'linear' or 'dorefa'")


@register("ternary")
class TernaryWeights(WeightQuantizer):
    """Weights -1, 0 and +1 times a scale, see `ternary`.

    Parameters
    ----------
    bits : int
        2, the width of the alphabet ``ternary``.
    threshold : float
        In units of the mean magnitude; from 0 to less than 1, so that the largest weight always is above it.
    per_channel : bool
        Whether each output channel has a threshold and a scale of its own; the paper has one for each layer.
    """

    def __init__(self, bits: int = 2, threshold: float = TWN_THRESHOLD, per_channel: bool = True) -> None:
        super().__init__()
        check_two_bits(bits, "ternary")
        if not isinstance(threshold, int | float) or not 0 <= threshold < 1 or math.isnan(threshold):
            raise ConfigError(f"quantizer 'ternary' has a threshold from 0 to less than 1 mean magnitudes, not {threshold!r}")
        self.threshold = float(threshold)
        self.per_channel = check_flag(per_channel, "per_channel", "quantizer 'ternary'")

    @property
    def code_type(self) -> CodeType:
        """``ternary`` of 2 bits."""
        return TERNARY

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)`` or ``()``."""
        codes, scale = ternary(x, self.threshold, per_channel=self.per_channel)
        return Quantized(codes, scale, self.zero)


class _StochasticTernary:
    """Two bits and a scale of 1."""

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        check_two_bits(bits, "stochastic_ternary")

    @property
    def code_type(self) -> CodeType:
        """``ternary`` of 2 bits."""
        return TERNARY


@register("stochastic_ternary")
class StochasticTernary(_StochasticTernary, ActivationQuantizer):
    """Activations -1, 0 and +1: `stochastic_ternary` in training, the nearest of the three in eval, where 1/2 and -1/2 are 0; scale 1.

    Parameters
    ----------
    bits : int
        2, the width of the alphabet ``ternary``.
    """

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        return Quantized(stochastic_ternary(x) if self.training else round_in_range(x, -1, 1), constant(1.0, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """No step: the code is the input, rounded and clipped."""
        return []


@register("stochastic_ternary")
class StochasticTernaryWeights(_StochasticTernary, WeightQuantizer):
    """Weights -1, 0 and +1: `stochastic_ternary` in training with the gradient unmasked, the nearest of the three in eval; latent weights clipped to [-1, 1]; scale 1.

    Parameters
    ----------
    bits : int
        2, the width of the alphabet ``ternary``.
    """

    latent_range = (-1.0, 1.0)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of the latent weights."""
        codes = stochastic_ternary(x, clip=False) if self.training else round_in_range(x, -1, 1, clip=False)
        return Quantized(codes, constant(1.0, x), self.zero)
