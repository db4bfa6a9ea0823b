"""One bit that is 0 or 1: the unit step."""

from __future__ import annotations

from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, constant, operand
from lobit.quantizers.registry import register
from lobit.quantizers.sign import OneBit
from lobit.quantizers.straight_through import straight_through

ZERO_OR_ONE = CodeType(Alphabet.UNSIGNED, 1)
_LIFT = 2.0**100  # twice of it takes the smallest subnormal number, 2^-149, beyond 1/2


def heaviside(x: Tensor, *, clip: bool = True) -> Tensor:
    """The unit step, with a straight-through gradient.

    Forward: ``1 if x > 0 else 0``. Backward: ``g_x = g * 1[|x| <= 1]``, or ``g`` everywhere without ``clip``: for weights, which are kept in range by
    clipping their latent values.

    Parameters
    ----------
    x : Tensor
        Floats of any shape; NaN becomes 0.
    clip : bool
        Whether the gradient is cut outside of [-1, 1].

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, equation 5 (the gradient); the step to {0, 1} as Larq's ``SteHeaviside`` has it.

    Examples
    --------
    >>> import torch
    >>> heaviside(torch.tensor([-0.5, 0.0, 1e-45, 2.0]))
    tensor([0., 0., 1., 1.])
    """
    codes = (x.detach() > 0).to(x.dtype)
    return straight_through(x, codes, -1.0, 1.0) if clip else straight_through(x, codes)


class _ZeroOrOne(OneBit):
    """Codes 0 and 1 of ``unsigned`` of one bit."""

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` of one bit."""
        return ZERO_OR_ONE


@register("heaviside")
class Heaviside(_ZeroOrOne, ActivationQuantizer):
    """Activations 0 and 1: `heaviside`; scale 1. What is not positive is real 0, as behind a ReLU, and so is the padding.

    Parameters
    ----------
    bits : int
        1.
    """

    def forward(self, x: Tensor) -> Quantized:
        """Codes 0 and 1 of a tensor of any shape."""
        return Quantized(heaviside(x), constant(1.0, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """What is positive, however small, grows beyond 1/2; two products with a power of two, each of them exact up to where the codes' own range clips."""
        return [("max", operand(0.0)), ("min", operand(1 / _LIFT)), ("mul", operand(_LIFT)), ("mul", operand(_LIFT))]


@register("heaviside")
class HeavisideWeights(_ZeroOrOne, WeightQuantizer):
    """Weights 0 and 1, a mask: `heaviside` with the gradient unmasked, latent weights clipped to [-1, 1]; scale 1.

    Parameters
    ----------
    bits : int
        1.
    """

    latent_range = (-1.0, 1.0)

    def forward(self, x: Tensor) -> Quantized:
        """Codes 0 and 1 of the latent weights."""
        return Quantized(heaviside(x, clip=False), constant(1.0, x), self.zero)
