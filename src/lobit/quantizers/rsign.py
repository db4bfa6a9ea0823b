"""RSign: the sign against a threshold that each channel learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, constant, operand
from lobit.quantizers.pseudo_gradients import SWISH_BETA, SignGradient, check_sign_gradient
from lobit.quantizers.registry import register
from lobit.quantizers.sign import OneBit, sign


def rsign(x: Tensor, shift: Tensor, gradient: SignGradient = "approx", *, beta: float = SWISH_BETA) -> Tensor:
    """The sign against a threshold.

    Forward: ``+1 if x >= shift else -1``. Backward: ``g_x = g * slope(x - shift)``, the slope as in `lobit.quantizers.sign`; ``g_shift = - sum g_x`` over what shares a threshold.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    shift : Tensor
        Thresholds, broadcastable to ``x``.
    gradient : {"approx", "clipped", "identity", "swish"}
        Slope of the backward pass.
    beta : float
        Steepness of ``swish``.

    References
    ----------
    Liu et al., ReActNet, arXiv 2003.03488, equation 1 (RSign). At equality it has -1, here it is +1 as everywhere.

    Examples
    --------
    >>> rsign(torch.tensor([0.0, 0.5, 2.0]), torch.tensor(0.5))
    tensor([-1.,  1.,  1.])
    """
    return sign(x - shift, gradient, beta=beta)


@register("rsign")
class RSign(OneBit, ActivationQuantizer):
    """Activations of one bit against a learned threshold for each channel; scale 1.

    Forward: ``codes = +1 if x >= shift_c else -1``. Backward: ``g_x = g * slope(x - shift_c)``, the slope as in `sign`; ``g_shift_c = - sum g_x`` over the channel.
    Thresholds start at 0. At equality the paper has -1, lobit +1, as everywhere. `lobit.optim.parameter_groups` counts thresholds among the parameters of quantizers.

    Parameters
    ----------
    bits : int
        1.
    gradient, beta
        As `rsign` takes them.

    References
    ----------
    Liu et al., ReActNet, arXiv 2003.03488, equation 1 (RSign).
    """

    def __init__(self, bits: int = 1, gradient: SignGradient = "approx", beta: float = SWISH_BETA) -> None:
        super().__init__(bits)
        check_sign_gradient(gradient, beta, "quantizer 'rsign'")
        self.gradient: SignGradient = gradient
        self.beta = float(beta)
        self.shift = nn.Parameter(torch.zeros(0))

    def attach(self, shape: tuple[int, ...], device: torch.device | None = None) -> None:
        """Make room for one threshold for each channel.

        Raises
        ------
        ConfigError
            When the quantizer belongs to a layer already.
        """
        if self.shift.numel():
            raise ConfigError(
                f"this quantizer holds the thresholds of {self.owner or 'another layer'}; give each layer a quantizer of its own"
            )
        self.shift = nn.Parameter(torch.zeros(shape, device=device or self.shift.device))

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of an input of the layer."""
        if not self.shift.numel():
            raise ConfigError(
                "quantizer 'rsign' does not know how many channels it quantizes; give it to a layer, or call attach(shape) first"
            )
        return Quantized(rsign(x, self.shift, self.gradient, beta=self.beta), constant(1.0, x), self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One subtraction of each channel's threshold."""
        return [("sub", operand(self.shift))]

    def reset(self) -> None:
        """Put the thresholds back to 0."""
        with torch.no_grad():
            self.shift.zero_()

    def extra_repr(self) -> str:
        """Code type and channels, for printing."""
        return f"odd1, {self.shift.numel()} thresholds, {self.gradient}"
