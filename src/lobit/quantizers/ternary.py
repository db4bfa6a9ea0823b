"""Ternary weights: -1, 0 and +1 times a scale."""

from __future__ import annotations

import math

from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, WeightQuantizer, check_flag, wide
from lobit.quantizers.magnitude_sign import slope_of
from lobit.quantizers.registry import register
from lobit.quantizers.straight_through import straight_through

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
        if type(bits) is not int or bits != 2:
            raise ConfigError(f"quantizer 'ternary' has 2 bits, not {bits!r}; for other widths use 'lsq', 'linear' or 'dorefa'")
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
