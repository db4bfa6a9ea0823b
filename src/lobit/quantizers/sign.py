"""One bit: deterministic and stochastic sign, and the sign with the mean magnitude of each output channel as its scale."""

from __future__ import annotations

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers import fused
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, constant, wide
from lobit.quantizers.registry import register
from lobit.quantizers.straight_through import straight_through

ONE_BIT = CodeType(Alphabet.ODD, 1)
_TINY = 2.0**-100  # keeps 0 / scale at 0 where all weights of a channel are 0


def sign_codes(x: Tensor) -> Tensor:
    """``+1 if x >= 0 else -1``; never 0."""
    return fused.sign(x) if fused.usable(x) else (x.detach() >= 0).to(x.dtype).mul_(2).sub_(1)


def sign(x: Tensor, *, clip: bool = True) -> Tensor:
    """The sign, with the straight-through estimator.

    Forward: ``+1 if x >= 0 else -1``. Backward: ``g_x = g * 1[|x| <= 1]``, or ``g`` itself without ``clip`` (for weights, which are kept in range by
    clipping their latent values).

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, equations 1 and 5.
    """
    return straight_through(x, sign_codes(x), -1.0, 1.0) if clip else straight_through(x, sign_codes(x))


def stochastic_sign(x: Tensor) -> Tensor:
    """A random sign whose mean is ``clip(x, -1, 1)``.

    Forward: ``+1`` with probability ``clip((x + 1) / 2, 0, 1)``, else ``-1``. Backward: ``g_x = g * 1[|x| <= 1]``, the derivative of the mean.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, equation 2.
    """
    above = torch.rand_like(x) * 2 - 1 < x.detach()
    return straight_through(x, above.to(x.dtype).mul_(2).sub_(1), -1.0, 1.0)


def mean_magnitude(w: Tensor, *, per_channel: bool = True) -> Tensor:
    """``mean |w|``, per output channel (shape ``(O, 1, ..)``) or of the whole tensor (shape ``()``); summed in float64, rounded to float32 once."""
    magnitude = wide(w.detach()).abs()
    return (magnitude.mean(tuple(range(1, w.ndim)), keepdim=True) if per_channel else magnitude.mean()).float()


def scaled_sign(w: Tensor, scale: Tensor) -> Tensor:
    """Sign codes whose *values* ``scale * codes`` pass the gradient straight to ``w``.

    Forward: ``+1 if w >= 0 else -1``. Backward: ``g_w = g / scale``; the product with ``scale`` that follows cancels it. The scale itself is taken as
    a constant, as DoReFa-Net does.
    """
    slope = scale.clamp(min=_TINY).reciprocal() if torch.is_grad_enabled() else None
    return straight_through(w, sign_codes(w), slope=slope)


class _OneBit:
    """Accepts ``bits=1`` and nothing else, so that names and policies can pass a width."""

    alias: str

    def __init__(self, bits: int = 1) -> None:
        super().__init__()
        if bits != 1:
            raise ConfigError(f"quantizer {self.alias!r} has 1 bit, not {bits!r}; for more bits use 'lsq', 'linear' or 'dorefa'")

    @property
    def code_type(self) -> CodeType:
        return ONE_BIT


@register("sign")
class Sign(_OneBit, ActivationQuantizer):
    """Activations of one bit: `sign` with the clipped straight-through estimator; scale 1."""

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of a tensor of any shape."""
        return Quantized(sign(x), constant(1.0, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """No step: the code is the sign of the input."""
        return []


@register("stochastic_sign")
class StochasticSign(Sign):
    """Activations of one bit: `stochastic_sign` in training, `sign` in eval; scale 1."""

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of a tensor of any shape."""
        return Quantized(stochastic_sign(x) if self.training else sign(x), constant(1.0, x), self.zero)


@register("sign")
class SignWeights(_OneBit, WeightQuantizer):
    """Plain -1/+1 weights as in the paper: `sign`, the gradient unmasked, latent weights clipped to [-1, 1]; scale 1."""

    latent_range = (-1.0, 1.0)

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of the latent weights."""
        return Quantized(sign(x, clip=False), constant(1.0, x), self.zero)


@register("magnitude_sign")
class MagnitudeSign(_OneBit, WeightQuantizer):
    """Weights of one bit: sign times the mean magnitude of the output channel.

    Forward: ``scale_o = mean |w_o|``, ``codes = sign(w)``. Backward: `scaled_sign`, so that the value ``scale * codes`` has slope 1 in ``w``.

    References
    ----------
    Rastegari et al., XNOR-Net, arXiv 1603.05279 (the scale); Zhou et al., DoReFa-Net, arXiv 1606.06160 (the gradient).
    """

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``."""
        scale = mean_magnitude(x)
        return Quantized(scaled_sign(x, scale), scale, self.zero)
