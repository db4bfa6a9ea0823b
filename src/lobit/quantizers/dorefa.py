"""DoReFa-Net's quantizers of weights and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_width, constant, operand, wide
from lobit.quantizers.magnitude_sign import mean_magnitude, scaled_sign
from lobit.quantizers.registry import register
from lobit.quantizers.straight_through import round_in_range

_TINY = 1e-30  # all-zero weights become the middle of the range, not 0 / 0


class _DoReFaWeights(torch.autograd.Function):
    """Keeps the weights alone: their hyperbolic tangent is taken again, for a chain of operators would keep five tensors of their size."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, n: int) -> Tensor:
        t, largest = _squashed(w)
        return t.div_(_width(largest)).add_(0.5).mul_(n).clamp_(0, n).round_().mul_(2).sub_(n)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.n = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        t, largest = _squashed(w)
        width = _width(largest)
        through = grad * (2 * ctx.n / width)
        at_largest = (t == largest) | (t == -largest)
        share = -torch.dot(through.flatten(), t.flatten()) / width * 2 / at_largest.sum()  # of each of the largest: through max|t|
        sign = torch.where(at_largest & (2 * largest > _TINY), t, 0).div(largest.clamp(min=_TINY))
        through = torch.addcmul(through, sign, share)
        return torch.addcmul(through, through * t, t, value=-1), None  # through (1 - t^2)


def _squashed(w: Tensor) -> tuple[Tensor, Tensor]:
    t = w.tanh()
    return t, t.abs().amax()


def _width(largest: Tensor) -> Tensor:
    return (2 * largest).clamp(min=_TINY)


def dorefa_weights(w: Tensor, bits: int) -> Tensor:
    """Codes of DoReFa's weights for 2 to 8 bits.

    Forward, with ``n = 2^k - 1`` and ``t = tanh w``: ``2 * round(n * (t / (2 max|t|) + 1/2)) - n``: odd integers; their value is ``code / n`` in [-1, 1].
    Backward: the derivative of the formula with the rounding taken as the identity: ``g_t = g n / max|t|``, to the largest ``|t|`` (in equal parts where there
    are several) ``-sign(t) sum(g n t) / max|t|^2`` besides, and ``g_w = g_t (1 - t^2)``.

    References
    ----------
    Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 9.
    """
    return _DoReFaWeights.apply(w, (1 << bits) - 1)  # type: ignore[no-any-return, no-untyped-call]


def dorefa_activations(x: Tensor, bits: int) -> Tensor:
    """Codes of DoReFa's activations.

    Forward, with ``n = 2^k - 1``: ``round(n * clip(x, 0, 1))``; their value is ``code / n`` in [0, 1]. Backward: ``g_x = g * n * 1[0 <= n x <= n]``.

    References
    ----------
    Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 11.
    """
    n = (1 << bits) - 1
    return round_in_range(x * n, 0, n)


@register("dorefa")
class DoReFaWeights(WeightQuantizer):
    """Weights: `dorefa_weights`; one bit is ``sign(w) * mean|w|`` over the whole tensor with slope 1.

    In eval the hyperbolic tangent is taken in float64, where the CPU's vector width does not decide the code.

    Parameters
    ----------
    bits : int
        1 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.check_bits(bits)
        self.bits = bits

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'dorefa'")

    @property
    def code_type(self) -> CodeType:
        """``odd`` of ``bits`` bits."""
        return CodeType(Alphabet.ODD, self.bits)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of the latent weights; one scale for all."""
        if self.bits == 1:
            scale = mean_magnitude(x, per_channel=False)
            return Quantized(scaled_sign(x, scale), scale, self.zero)
        codes = dorefa_weights(x if self.training else wide(x), self.bits).to(x.dtype)
        return Quantized(codes, constant(1.0 / ((1 << self.bits) - 1), x), self.zero)


@register("dorefa")
class DoReFaActivations(ActivationQuantizer):
    """Activations in [0, 1]: `dorefa_activations`.

    Parameters
    ----------
    bits : int
        1 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.check_bits(bits)
        self.bits = bits

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'dorefa'")

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` of ``bits`` bits."""
        return CodeType(Alphabet.UNSIGNED, self.bits)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        return Quantized(dorefa_activations(x, self.bits), constant(1.0 / self.code_type.hi, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """Clip to [0, 1], then multiply by ``2^k - 1``."""
        return [("max", operand(0.0)), ("min", operand(1.0)), ("mul", operand(float(self.code_type.hi)))]
