"""Gradients as codes of 2 to 8 bits: DoReFa's odd codes, linear codes, powers of two; rounded at random, so that their mean is the gradient.

All three are scaled by the largest magnitude ``m`` of the sample or of the tensor. So they do not depend on the scale of the loss, nothing is clipped, and with
stochastic rounding ``E[scale * codes] = g`` holds for every gradient. Gradients are computed in float32 whatever their dtype: noise of 8 bits would not be unbiased.
A gradient that is not finite makes its sample (or tensor) NaN or infinite, where a loss scaler or a guard finds it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import GradientQuantizer, Quantized, check_flag, check_width
from lobit.quantizers.powers import ap2, floor_power
from lobit.quantizers.registry import register

ScalePer = Literal["sample", "tensor"]
_SMALLEST = 2.0**-126  # the smallest normal float32


def _noise(like: Tensor, low: float, high: float) -> Tensor:
    return torch.empty_like(like).uniform_(low, high)


def dorefa_gradients(g: Tensor, largest: Tensor, bits: int, *, stochastic: bool = True) -> Tensor:
    """Odd codes of DoReFa's gradients.

    Forward, with ``n = 2^k - 1`` and ``m = largest``: ``2 * round(n * (g / (2m) + 1/2) + u) - n`` with u drawn from Uniform(-1/2, 1/2); their value is
    ``m / n * code``. Without ``stochastic`` u is 0. Zero is no code: a gradient of 0 becomes +1 or -1 at random, and +1 without ``stochastic``.

    Parameters
    ----------
    g : Tensor
        float32 or float64, of any shape.
    largest : Tensor
        The largest magnitude of ``g``, broadcastable to it; where it is 0 the codes mean nothing, and their scale is 0.
    bits : int
        2 to 8.

    References
    ----------
    Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 12.
    """
    n = (1 << bits) - 1
    v = g / _divisor(largest)
    if not stochastic:
        return v.add_(1).mul_(n / 2).round_().clamp_(0, n).mul_(2).sub_(n)
    # n is odd, so round(v n/2 + n/2 + u) = floor(v n/2 + u) + (n + 1) / 2: counted from the middle of the codes, where floats are finest
    half = 1 << (bits - 1)
    return _noise(v, -0.5, 0.5).add_(v, alpha=n / 2).floor_().clamp_(-half, half - 1).mul_(2).add_(1)


def linear_gradients(g: Tensor, largest: Tensor, bits: int, *, stochastic: bool = True) -> Tensor:
    """Signed codes, symmetric about 0: the paper's LinearQuant with a step that the data give.

    Forward, with ``h = 2^(k-1) - 1`` and ``m = largest``: ``floor(h * g / m + u)`` with u drawn from Uniform(0, 1), -h .. h; their value is ``m / h * code``.
    Without ``stochastic``: ``round(h * g / m)``, half to even. 0 stays 0.

    The paper gives the form, not its scaling. The scale here is the largest magnitude, so that no gradient is clipped, and the lowest code of ``signed`` is left
    out, so that no sign is favoured. With 2 bits this is TernGrad.

    Parameters
    ----------
    g, largest, bits
        As `dorefa_gradients` takes them.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 3.1; Wen et al., TernGrad, arXiv 1705.07878, equation 3 (two bits).
    """
    top = (1 << (bits - 1)) - 1
    v = g / _divisor(largest)
    codes = _noise(v, 0.0, 1.0).add_(v, alpha=top).floor_() if stochastic else v.mul_(top).round_()
    return codes.clamp_(-top, top)


def log_gradients(g: Tensor, scale: Tensor, bits: int, *, stochastic: bool = True) -> Tensor:
    """Powers of two and 0: the paper's LogQuant, a sign and an exponent.

    Forward, with ``v = g / scale`` and ``e = max(0, floor(log2|v|))``: ``2^e * floor(v / 2^e + u)`` with u drawn from Uniform(0, 1): one of the two neighbours of v among
    0, +-1, +-2, +-4 .. +-2^(2^(k-1) - 2), the nearer one more often, so that the mean is v. Without ``stochastic``: ``AP2(v)``, 0 where that is below 1.

    Parameters
    ----------
    g : Tensor
        float32 or float64, of any shape.
    scale : Tensor
        The smallest magnitude that is kept, a power of two, broadcastable to ``g``: see `log_scale`. 0 where all of ``g`` is 0.
    bits : int
        2 to 8.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 3.1; Miyashita et al., arXiv 1603.01025 (gradients in logarithmic form).
    """
    top = 2.0 ** ((1 << (bits - 1)) - 2)
    v = g / _divisor(scale)
    if not stochastic:
        power = ap2(v)
        return torch.where(power.abs() < 1, 0.0, power).clamp_(-top, top)
    below = floor_power(v.abs().clamp_(min=1))
    return _noise(v, 0.0, 1.0).add_(v.div_(below)).floor_().mul_(below).clamp_(-top, top)


def log_scale(largest: Tensor, bits: int) -> Tensor:
    """The scale of `log_gradients`: the highest of its ``2^(k-1) - 1`` powers is the first that is not below ``largest``, or the dtype's highest.

    It is no smaller than 2^-126, the smallest normal float32, where 7 or 8 bits would reach lower; 0 where ``largest`` is 0.
    """
    below = floor_power(largest)
    scale = below * 2.0 ** (2 - (1 << (bits - 1)))
    higher = (below < largest) & torch.isfinite(2 * below)  # beyond the highest power of two is none, and values are clipped to it
    scale = torch.where(higher, 2 * scale, scale).clamp_(min=_SMALLEST)
    return torch.where(largest == 0, largest, scale + 0 * largest)  # NaN stays


def _divisor(scale: Tensor) -> Tensor:
    """``scale``, and 1 where it is 0; NaN stays."""
    return scale + (scale == 0)


class _ScaledByLargest(GradientQuantizer):
    """What the three have in common: their settings, and the largest magnitude."""

    def __init__(self, bits: int, scale_per: ScalePer = "sample", stochastic: bool = True, inputs_only: bool = False) -> None:
        super().__init__()
        self.check_bits(bits)
        self.bits = bits
        if scale_per not in ("sample", "tensor"):
            raise ConfigError(f"scale_per of a gradient quantizer is 'sample' or 'tensor', not {scale_per!r}")
        self.scale_per = scale_per
        self.stochastic = check_flag(stochastic, "stochastic", "a gradient quantizer")
        self.inputs_only = check_flag(inputs_only, "inputs_only", "a gradient quantizer")

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 2 to 8."""
        check_width(bits, 2, f"quantizer {self.alias!r} of gradients")

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a gradient of any shape, samples along the first axis; the scale is of shape ``()``, or ``(N, 1, ..)`` per sample."""
        with torch.no_grad():
            g = x.to(torch.promote_types(x.dtype, torch.float32))
            if not g.numel():
                return Quantized(g.clone(), g.new_ones(()), self.zero)
            axes = tuple(range(1, g.ndim)) if self.scale_per == "sample" and g.ndim > 1 else tuple(range(g.ndim))
            largest = g.abs().amax(axes, keepdim=len(axes) < g.ndim)
            return self._quantized(g, largest)

    def _quantized(self, g: Tensor, largest: Tensor) -> Quantized:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The settings, for printing."""
        rounding = "stochastic" if self.stochastic else "to nearest"
        return f"bits={self.bits}, scale_per={self.scale_per!r}, {rounding}{', inputs_only' if self.inputs_only else ''}"


@register("dorefa")
class DoReFaGradients(_ScaledByLargest):
    """Gradients as DoReFa-Net has them, see `dorefa_gradients`: odd codes, scale ``m / (2^k - 1)``.

    Parameters
    ----------
    bits : int
        2 to 8.
    scale_per : {"sample", "tensor"}
        Whether m is the largest magnitude of each sample (a row of the first axis), or of the whole tensor. A gradient of one axis is one sample.
    stochastic : bool
        Round at random, so that the mean of the values is the gradient. False rounds to the nearest code, which makes small gradients one and the same.
    inputs_only : bool
        Quantize only the gradient that flows on to the inputs; the weights' gradient is then formed from the float one.
    """

    @property
    def code_type(self) -> CodeType:
        """``odd`` of ``bits`` bits."""
        return CodeType(Alphabet.ODD, self.bits)

    def _quantized(self, g: Tensor, largest: Tensor) -> Quantized:
        codes = dorefa_gradients(g, largest, self.bits, stochastic=self.stochastic)
        return Quantized(codes, largest / self.code_type.hi, self.zero)


@register("linear")
class LinearGradients(_ScaledByLargest):
    """Gradients in the paper's linear form, see `linear_gradients`: ``signed`` codes without the lowest, scale ``m / (2^(k-1) - 1)``. 0 is a code.

    Parameters
    ----------
    bits, scale_per, stochastic, inputs_only
        As `DoReFaGradients` takes them.
    """

    @property
    def code_type(self) -> CodeType:
        """``signed`` of ``bits`` bits."""
        return CodeType(Alphabet.SIGNED, self.bits)

    def _quantized(self, g: Tensor, largest: Tensor) -> Quantized:
        codes = linear_gradients(g, largest, self.bits, stochastic=self.stochastic)
        return Quantized(codes, largest / self.code_type.hi, self.zero)


@register("log")
class LogGradients(_ScaledByLargest):
    """Gradients in the paper's logarithmic form, see `log_gradients`: 0 and powers of two, with a scale that is one too. A product with them is a shift.

    k bits are a sign and ``2^(k-1) - 1`` exponents, so 6 bits span 31 powers: small gradients keep their size where uniform codes lose them.

    Parameters
    ----------
    bits, scale_per, stochastic, inputs_only
        As `DoReFaGradients` takes them.
    """

    @property
    def code_type(self) -> CodeType:
        """``log2`` of ``bits`` bits.

        Raises
        ------
        ConfigError
            For more than 4 bits, whose codes are beyond 8-bit integers; the alphabet of files ends there.
        """
        return CodeType(Alphabet.LOG2, self.bits)

    def _quantized(self, g: Tensor, largest: Tensor) -> Quantized:
        scale = log_scale(largest, self.bits)
        return Quantized(log_gradients(g, scale, self.bits, stochastic=self.stochastic), scale, self.zero)
