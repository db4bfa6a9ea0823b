"""One bit with a scale: the sign of the weights times their mean magnitude."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, WeightQuantizer, wide
from lobit.quantizers.registry import register
from lobit.quantizers.sign import OneBit, sign_codes
from lobit.quantizers.straight_through import straight_through
from lobit.quantizers.tracing import differentiated

_TINY = 2.0**-100  # keeps 0 / scale at 0 where all weights of a channel are 0


def mean_magnitude(w: Tensor, *, per_channel: bool = True) -> Tensor:
    """``mean |w|``, per output channel (shape ``(O, 1, ..)``) or of the whole tensor (shape ``()``); summed in float64, rounded to float32 once."""
    magnitude = wide(w.detach()).abs()
    return (magnitude.mean(tuple(range(1, w.ndim)), keepdim=True) if per_channel else magnitude.mean()).float()


def slope_of(scale: Tensor) -> Tensor | None:
    """``1 / scale``, which the product with ``scale`` cancels; 0 / 0 stays 0. None where no gradient is taken."""
    return scale.clamp(min=_TINY).reciprocal() if torch.is_grad_enabled() else None


def scaled_sign(w: Tensor, scale: Tensor) -> Tensor:
    """Sign codes whose *values* ``scale * codes`` pass the gradient straight to ``w``.

    Forward: ``+1 if w >= 0 else -1``. Backward: ``g_w = g / scale``; the product with ``scale`` that follows cancels it. The scale itself is taken as
    a constant, as DoReFa-Net does.
    """
    return straight_through(w, sign_codes(w), slope=slope_of(scale))


class _Xnor(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, codes: Tensor, mask: Tensor, share: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        mask, share = ctx.saved_tensors
        return grad * (mask + share), None, None, None


def xnor_sign(w: Tensor, scale: Tensor) -> Tensor:
    """Sign codes with XNOR-Net's gradient of the *values* ``scale * codes``.

    Forward: ``+1 if w >= 0 else -1``. Backward, for the gradient ``g`` of the values and n weights in a channel: ``g_w = g * (1 / n + scale * 1[|w| <= 1])``:
    the scale is the mean of n magnitudes, and the sign is taken as ``clip(w, -1, 1)``.

    References
    ----------
    Rastegari et al., XNOR-Net, arXiv 1603.05279, section 3.1; the window of the sign as in its released code.
    """
    codes, slope = sign_codes(w), slope_of(scale)
    if slope is None or not differentiated(w):
        return codes
    return _Xnor.apply(w, codes, w.detach().abs() <= 1, slope / w[0].numel())  # type: ignore[no-any-return, no-untyped-call]


@register("magnitude_sign")
class MagnitudeSign(OneBit, WeightQuantizer):
    """Weights of one bit: sign times the mean magnitude of the output channel.

    Forward: ``scale_o = mean |w_o|``, ``codes = sign(w)``. Backward: the value ``scale * codes`` has slope 1 in ``w`` (``dorefa``), or XNOR-Net's own,
    ``1 / n + scale * 1[|w| <= 1]`` with n weights in a channel (``xnor``; see `xnor_sign`).

    Parameters
    ----------
    bits : int
        1.
    gradient : {"dorefa", "xnor"}
        Slope of the backward pass.

    References
    ----------
    Rastegari et al., XNOR-Net, arXiv 1603.05279 (scale and gradient); Zhou et al., DoReFa-Net, arXiv 1606.06160 (gradient).
    """

    def __init__(self, bits: int = 1, gradient: Literal["dorefa", "xnor"] = "dorefa") -> None:
        super().__init__(bits)
        if gradient not in ("dorefa", "xnor"):
            raise ConfigError(f"quantizer 'magnitude_sign' has no gradient {gradient!r}; choose 'dorefa' or 'xnor'")
        self.gradient = gradient

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``."""
        scale = mean_magnitude(x)
        return Quantized((xnor_sign if self.gradient == "xnor" else scaled_sign)(x, scale), scale, self.zero)

    def extra_repr(self) -> str:
        """Code type and gradient, for printing."""
        return f"odd1, {self.gradient}"
