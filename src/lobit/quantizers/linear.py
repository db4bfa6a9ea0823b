"""LinearQuant, the paper's uniform quantizer on [-1, 1)."""

from __future__ import annotations

from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_width, constant, operand
from lobit.quantizers.registry import register
from lobit.quantizers.sign import ONE_BIT, sign
from lobit.quantizers.straight_through import round_in_range


def linear_quant(x: Tensor, bits: int, *, clip: bool = True) -> Tensor:
    """Codes of the paper's LinearQuant for 2 to 8 bits.

    Forward: ``clamp(round(x / step), -2^(k-1), 2^(k-1) - 1)`` with ``step = 2^-(k-1)``. Backward: ``g_x = (g / step) * 1[-1 <= x <= 1 - step]``,
    or ``g / step`` everywhere without ``clip``: for weights, whose latent values the trainer clips, and which a mask would hold fast beyond the highest level.

    As printed, the formula clips to [-1, 1] and has 2^k + 1 levels; here the highest level is dropped, so that codes have k bits.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 3.1.
    """
    half = 1 << (bits - 1)
    return round_in_range(x / (1.0 / half), -half, half - 1, clip=clip)


class _Linear:
    bits: int

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.check_bits(bits)
        self.bits = bits

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'linear'")

    @property
    def step(self) -> float:
        """Distance of two levels: ``2^-(k-1)``."""
        return 2.0 ** (1 - self.bits)

    @property
    def code_type(self) -> CodeType:
        return ONE_BIT if self.bits == 1 else CodeType(Alphabet.SIGNED, self.bits)


@register("linear")
class LinearQuant(_Linear, ActivationQuantizer):
    """Activations in [-1, 1 - step], see `linear_quant`; one bit is `sign` with the clipped gradient.

    Parameters
    ----------
    bits : int
        1 to 8.
    """

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        codes = sign(x) if self.bits == 1 else linear_quant(x, self.bits)
        return Quantized(codes, constant(self.step, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One exact division by the step, a power of two; none for one bit."""
        return [] if self.bits == 1 else [("div", operand(self.step))]


@register("linear")
class LinearQuantWeights(_Linear, WeightQuantizer):
    """Weights in [-1, 1 - step], see `linear_quant`; one bit is `sign`. The gradient is unmasked. Latent weights are clipped to [-1, 1].

    Parameters
    ----------
    bits : int
        1 to 8.
    """

    latent_range = (-1.0, 1.0)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of the latent weights; one scale for all."""
        codes = sign(x, "identity") if self.bits == 1 else linear_quant(x, self.bits, clip=False)
        return Quantized(codes, constant(self.step, x), self.zero)
