"""LogQuant: zero and powers of two, by AP2, the nearest power of two."""

from __future__ import annotations

from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_width, constant, operand
from lobit.quantizers.powers import ap2
from lobit.quantizers.registry import register
from lobit.quantizers.sign import ONE_BIT, sign_codes
from lobit.quantizers.straight_through import straight_through

WIDEST_IN_FILES = 4
"""More bits have powers above 2^6, which no signed byte holds."""
_LARGEST_TOP = 16
_SMALLEST = 2.0**-100  # the range of a channel whose weights are all 0


def _exponents(bits: int) -> int:
    """The exponent of the largest code, ``2^(k-1) - 2``; the smallest has exponent 0."""
    return int(2 ** (bits - 1)) - 2


def log_unit(bits: int) -> float:
    """What the codes of a span of 1 are multiples of: ``2^-E``, or 1 for one bit, and for 5 bits and more, whose codes are fractions."""
    return 2.0 ** -_exponents(bits) if 1 < bits <= WIDEST_IN_FILES else 1.0


def log_quant(x: Tensor, bits: int, span: float | Tensor = 1.0, *, clip: bool = True) -> Tensor:
    """Codes of LogQuant.

    Forward, with ``E = 2^(k-1) - 2``: ``AP2(x)`` clipped to ``[-span, span]``, or 0 where its magnitude is below ``span * 2^-E``; see `ap2`. With 2 to 4 bits
    the codes are the integers ``0, +-1, +-2, .. +-2^E`` in units of ``span * 2^-E``; with 5 to 8 bits, where these would leave the range of a byte or even of
    float32, they are fractions ``0, +-2^-E .. +-1`` in units of ``span``. One bit is the sign.
    Backward: ``g_x = (g / unit) * 1[|x| <= span]``, or ``g / unit`` everywhere without ``clip``: for weights, whose latent values the trainer clips.

    The paper's formula has a sign and an exponent, and no zero; here zero is a code, so that there are ``2^(k-1) - 1`` exponents.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    bits : int
        1 to 8.
    span : float or Tensor
        The largest level, a power of two.
    clip : bool
        Whether the gradient is cut outside the range.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 3.2; Miyashita et al., Convolutional Neural Networks using Logarithmic Data
    Representation, arXiv 1603.01025.
    """
    unit = log_unit(bits)
    v, largest = x / (span * unit), 1 / unit
    if bits == 1:
        codes = sign_codes(x)
    else:
        power = ap2(v.detach().float().clamp(-largest, largest))
        codes = power.masked_fill_(power.abs() < 2.0 ** -_exponents(bits) * largest, 0.0).to(x.dtype)
    return straight_through(v, codes, -largest, largest) if clip else straight_through(v, codes)


class _Log:
    bits: int

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.check_bits(bits)
        self.bits = bits

    @property
    def fractions(self) -> bool:
        """Whether codes are no integers: with 5 bits and more."""
        return self.bits > WIDEST_IN_FILES

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'log'")

    @property
    def code_type(self) -> CodeType:
        """``log2`` of 2 to 4 bits; ``odd`` of one.

        Raises
        ------
        ConfigError
            For 5 bits and more: such a quantizer trains, and no file holds its codes.
        """
        if self.bits > WIDEST_IN_FILES:
            raise ConfigError(
                f"quantizer 'log' of {self.bits} bits has powers of two over {_exponents(self.bits) + 1} exponents, for which files and kernels have no "
                f"codes; it is for training alone. Choose 2 to {WIDEST_IN_FILES} bits to export"
            )
        return ONE_BIT if self.bits == 1 else CodeType(Alphabet.LOG2, self.bits)

    def extra_repr(self) -> str:
        """The width, for printing."""
        return f"log2, {self.bits} bits"


def _check_top(top: int) -> int:
    if type(top) is not int or not -_LARGEST_TOP <= top <= _LARGEST_TOP:
        raise ConfigError(f"quantizer 'log' has a largest level 2^top with top from -{_LARGEST_TOP} to {_LARGEST_TOP}, not {top!r}")
    return top


@register("log")
class LogQuant(_Log, ActivationQuantizer):
    """Activations 0 and powers of two up to ``2^top``, see `log_quant`; one bit is the sign, times ``2^top``.

    Codes of 2 to 4 bits can be exported; 5 to 8 bits are for training.

    Parameters
    ----------
    bits : int
        1 to 8.
    top : int
        Exponent of the largest level, -16 to 16.
    """

    def __init__(self, bits: int, top: int = 0) -> None:
        super().__init__(bits)
        self.top = _check_top(top)

    @property
    def scale(self) -> float:
        """What a code of 1 stands for, a power of two."""
        return 2.0**self.top * log_unit(self.bits)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        return Quantized(log_quant(x, self.bits, 2.0**self.top), constant(self.scale, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One exact division by the scale, a power of two; none for one bit."""
        return [] if self.code_type == ONE_BIT else [("div", operand(self.scale))]


@register("log")
class LogQuantWeights(_Log, WeightQuantizer):
    """Weights 0 and powers of two up to ``2^top``, see `log_quant`; one bit is the sign times ``2^top``. The gradient is unmasked.

    Codes of 2 to 4 bits can be exported; 5 to 8 bits are for training.

    Parameters
    ----------
    bits : int
        1 to 8.
    top : int or None
        Exponent of the largest level, -16 to 16; latent weights are clipped to ``[-2^top, 2^top]``. None takes `ap2` of the largest magnitude of each output
        channel as its largest level, and leaves latent weights free: for nets that were trained in float.
    """

    def __init__(self, bits: int, top: int | None = 0) -> None:
        super().__init__(bits)
        self.top = None if top is None else _check_top(top)
        self.latent_range = None if top is None else (-(2.0**top), 2.0**top)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``, or ``()`` for a fixed range."""
        if self.top is None:
            span = ap2(x.detach().abs().amax(tuple(range(1, x.ndim)), keepdim=True)).clamp_(min=_SMALLEST)
        else:
            span = constant(2.0**self.top, x)
        return Quantized(log_quant(x, self.bits, span, clip=False), span * log_unit(self.bits), self.zero)
