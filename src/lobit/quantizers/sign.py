"""One bit without a learned scale: deterministic and stochastic sign, with a choice of pseudo-gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers import fused
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, constant
from lobit.quantizers.pseudo_gradients import SWISH_BETA, SignGradient, check_sign_gradient, with_sign_gradient
from lobit.quantizers.registry import register

ONE_BIT = CodeType(Alphabet.ODD, 1)


def sign_codes(x: Tensor) -> Tensor:
    """``+1 if x >= 0 else -1``; never 0."""
    return fused.sign(x) if fused.usable(x) else (x.detach() >= 0).to(x.dtype).mul_(2).sub_(1)


def sign(x: Tensor, gradient: SignGradient = "clipped", *, beta: float = SWISH_BETA) -> Tensor:
    """The sign, with a pseudo-gradient.

    Forward: ``+1 if x >= 0 else -1``. Backward: ``g_x = g * slope(x)``, with

    - ``clipped``: ``1[|x| <= 1]``, the straight-through estimator;
    - ``identity``: 1, for weights, which are kept in range by clipping their latent values;
    - ``approx``: ``max(0, 2 - 2 |x|)``, Bi-Real Net's;
    - ``swish``: ``beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))``, BNN+'s, which is negative for ``|x|`` above about ``2.4 / beta``.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    gradient : {"clipped", "identity", "approx", "swish"}
        The slope.
    beta : float
        Steepness of ``swish``.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, equations 1 and 5 (clipped); Liu et al., Bi-Real Net, arXiv 1808.00278, ApproxSign;
    Darabi et al., BNN+, arXiv 1812.11800, SwishSign.
    """
    return with_sign_gradient(x, sign_codes(x), gradient, beta)


def stochastic_sign(x: Tensor, gradient: SignGradient = "clipped", *, beta: float = SWISH_BETA) -> Tensor:
    """A random sign whose mean is ``clip(x, -1, 1)``.

    Forward: ``+1`` with probability ``clip((x + 1) / 2, 0, 1)``, else ``-1``. Backward: that of `sign`; ``clipped`` is the derivative of the mean.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, equation 2.
    """
    above = torch.rand_like(x) * 2 - 1 < x.detach()
    return with_sign_gradient(x, above.to(x.dtype).mul_(2).sub_(1), gradient, beta)


class OneBit:
    """Accepts ``bits=1`` and nothing else, so that names and policies can pass a width."""

    alias: str

    def __init__(self, bits: int = 1) -> None:
        super().__init__()
        if type(bits) is not int or bits != 1:
            raise ConfigError(f"quantizer {self.alias!r} has 1 bit, not {bits!r}; for more bits use 'lsq', 'linear' or 'dorefa'")

    @property
    def code_type(self) -> CodeType:
        """``odd`` of one bit."""
        return ONE_BIT


class _Sign(OneBit):
    """A sign with a pseudo-gradient."""

    def __init__(self, bits: int, gradient: SignGradient, beta: float) -> None:
        super().__init__(bits)
        check_sign_gradient(gradient, beta, f"quantizer {self.alias!r}")
        self.gradient: SignGradient = gradient
        self.beta = float(beta)

    def extra_repr(self) -> str:
        """Code type and gradient, for printing."""
        return f"odd1, {self.gradient}{f', beta={self.beta:g}' if self.gradient == 'swish' else ''}"


@register("sign")
class Sign(_Sign, ActivationQuantizer):
    """Activations of one bit: `sign`; scale 1.

    Parameters
    ----------
    bits : int
        1.
    gradient : {"clipped", "identity", "approx", "swish"}
        Slope of the backward pass. Where no other reason decides, the straight-through window ``clipped``.
    beta : float
        Steepness of ``swish``.
    """

    def __init__(self, bits: int = 1, gradient: SignGradient = "clipped", beta: float = SWISH_BETA) -> None:
        super().__init__(bits, gradient, beta)

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of a tensor of any shape."""
        return Quantized(sign(x, self.gradient, beta=self.beta), constant(1.0, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """No step: the code is the sign of the input."""
        return []


@register("identity_sign")
class IdentitySign(Sign):
    """Activations of one bit: `sign` with the gradient ``identity``; scale 1."""

    def __init__(self, bits: int = 1) -> None:
        super().__init__(bits, "identity")


@register("approx_sign")
class ApproxSign(Sign):
    """Activations of one bit: `sign` with the gradient ``approx``; scale 1."""

    def __init__(self, bits: int = 1) -> None:
        super().__init__(bits, "approx")


@register("swish_sign")
class SwishSign(Sign):
    """Activations of one bit: `sign` with the gradient ``swish``; scale 1.

    Parameters
    ----------
    bits : int
        1.
    beta : float
        Steepness.
    """

    def __init__(self, bits: int = 1, beta: float = SWISH_BETA) -> None:
        super().__init__(bits, "swish", beta)


@register("stochastic_sign")
class StochasticSign(Sign):
    """Activations of one bit: `stochastic_sign` in training, `sign` in eval; scale 1."""

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of a tensor of any shape."""
        draw = stochastic_sign if self.training else sign
        return Quantized(draw(x, self.gradient, beta=self.beta), constant(1.0, x), self.zero)


@register("sign")
class SignWeights(_Sign, WeightQuantizer):
    """Plain -1/+1 weights as in the paper: `sign`, the gradient unmasked, latent weights clipped to [-1, 1]; scale 1.

    Parameters
    ----------
    bits : int
        1.
    gradient : {"clipped", "identity", "approx", "swish"}
        Slope of the backward pass.
    beta : float
        Steepness of ``swish``.
    """

    latent_range = (-1.0, 1.0)

    def __init__(self, bits: int = 1, gradient: SignGradient = "identity", beta: float = SWISH_BETA) -> None:
        super().__init__(bits, gradient, beta)

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of the latent weights."""
        return Quantized(sign(x, self.gradient, beta=self.beta), constant(1.0, x), self.zero)


@register("approx_sign")
class ApproxSignWeights(SignWeights):
    """Plain -1/+1 weights: `sign` with the gradient ``approx``, latent weights clipped to [-1, 1]; scale 1."""

    def __init__(self, bits: int = 1) -> None:
        super().__init__(bits, "approx")


@register("swish_sign")
class SwishSignWeights(SignWeights):
    """Plain -1/+1 weights: `sign` with the gradient ``swish``, latent weights clipped to [-1, 1]; scale 1.

    Parameters
    ----------
    bits : int
        1.
    beta : float
        Steepness.
    """

    def __init__(self, bits: int = 1, beta: float = SWISH_BETA) -> None:
        super().__init__(bits, "swish", beta)


@register("stochastic_sign")
class StochasticSignWeights(SignWeights):
    """Plain -1/+1 weights: `stochastic_sign` in training with the gradient unmasked, `sign` in eval; latent weights clipped to [-1, 1]; scale 1.

    References
    ----------
    Courbariaux et al., BinaryConnect, arXiv 1511.00363, section 2.3.
    """

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of the latent weights."""
        draw = stochastic_sign if self.training else sign
        return Quantized(draw(x, self.gradient, beta=self.beta), constant(1.0, x), self.zero)
