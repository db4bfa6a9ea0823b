"""PACT: activations clipped at a learned level."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, check_flag, check_width, operand
from lobit.quantizers.from_data import FromData
from lobit.quantizers.lsq import SMALLEST, eval_step, keep_positive, kept_positive
from lobit.quantizers.observer import Sample
from lobit.quantizers.powers import used_scale
from lobit.quantizers.ranges import Grid, Method
from lobit.quantizers.registry import register
from lobit.quantizers.tracing import differentiated


class _Pact(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, alpha: Tensor, codes: Tensor, region: Tensor, slope: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        region, slope = ctx.saved_tensors  # a byte for each value: -1 below 0, 0 inside, 1 from alpha on
        grad = grad * slope
        return grad * (region == 0), (grad * (region == 1)).sum(dtype=slope.dtype), None, None, None


def pact(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Codes of activations clipped to ``[0, alpha]``; their value is ``code * alpha / n`` with ``n = 2^k - 1``.

    Forward: ``round(clamp(x / (alpha / n), 0, n))``. Backward, of the value with its scale ``alpha / n`` taken as a constant: ``g_x = g * 1[0 <= x < alpha]``, and
    ``g_alpha = sum(g * 1[x >= alpha])``: rounding is the identity in both. One byte is kept for each value.

    References
    ----------
    Choi et al., PACT, arXiv 1805.06085, equations 1 to 3.
    """
    n = (1 << bits) - 1
    with torch.no_grad():
        codes = (x / (alpha / n)).clamp(0, n).round_()
    if not differentiated(x, alpha):
        return codes
    with torch.no_grad():
        region = (x >= alpha).to(torch.int8) - (x < 0).to(torch.int8)
        slope = n / alpha
    return _Pact.apply(x, alpha, codes, region, slope)  # type: ignore[no-any-return, no-untyped-call]


@register("pact")
class PACT(FromData):
    """Activations clipped to ``[0, alpha]`` with a learned ``alpha``: `pact`. It takes the place of a ReLU, or stands behind one.

    The paper has no form for inputs of both signs, so negative ones become 0. ``alpha`` starts high and is drawn down by an L2 penalty: `pact_penalty` in the loss, or weight decay on
    its parameter group. Or `lobit.calibrate` sets it.

    Parameters
    ----------
    bits : int
        1 to 8.
    alpha : float
        Where the clipping level starts; positive.
    power_of_two : bool
        Whether the scale that is used is the power of two nearest to ``alpha / n``, see `power_of_two`; the clipping level then is n times that.

    References
    ----------
    Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv 1805.06085.
    """

    def __init__(self, bits: int, alpha: float = 10.0, power_of_two: bool = False) -> None:
        self.check_bits(bits)
        super().__init__(bits)
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'pact'")
        if not (isinstance(alpha, (int, float)) and 0 < alpha < math.inf):
            raise ConfigError(f"the clipping level alpha of quantizer 'pact' must be a positive number, not {alpha!r}")
        self.initial = float(alpha)
        self.alpha = nn.Parameter(torch.empty(()))
        self.reset()

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'pact'")

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` of ``bits`` bits."""
        return CodeType(Alphabet.UNSIGNED, self.bits)

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        alpha = kept_positive(self.alpha) if self.training else eval_step(self.alpha, self.owner, "clipping level")
        n = self.code_type.hi
        if self.power_of_two:
            alpha = used_scale(alpha / n, True) * n  # exact: n has few bits
        return Quantized(pact(x, alpha, self.bits), alpha.detach() / n, self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One division by the scale ``alpha / n``; the codes' own range clips."""
        scale = eval_step(self.alpha, self.owner, "clipping level") / self.code_type.hi
        return [("div", operand(used_scale(scale, self.power_of_two)))]

    def take(self, sample: Sample, method: Method | None) -> None:
        """Set ``alpha``; by its own rule it stays."""
        if method is not None:
            scale = method.fit(sample, Grid(0, self.code_type.hi)).scale
            self.alpha.copy_((scale * self.code_type.hi).clamp(min=SMALLEST).squeeze())

    @torch.no_grad()
    def reset(self) -> None:
        """Put ``alpha`` back to where it starts, which needs no data."""
        self.alpha.fill_(self.initial)
        self.started.fill_(True)
        self._running = True

    def keep_in_range(self) -> None:
        """Put a level that the optimizer took to or below 0 back to the smallest."""
        keep_positive(self.alpha)


def pact_penalty(model: nn.Module, decay: float) -> Tensor:
    """PACT's L2 penalty for the loss: ``decay / 2 * sum alpha^2`` over all `PACT` quantizers, whose gradient is that of weight decay.

    The paper takes the weights' own decay. Use this where the parameter group of ``alpha`` has no decay of its own, as in `lobit.optim.parameter_groups`.

    Raises
    ------
    ConfigError
        For a negative decay, or a model without `PACT`.
    """
    if not decay >= 0:
        raise ConfigError(f"the decay of PACT's penalty must be at least 0, not {decay!r}")
    levels = [module.alpha for module in model.modules() if isinstance(module, PACT)]
    if not levels:
        raise ConfigError("the model has no PACT quantizer; give its layers {'name': 'pact'} as the quantizer of activations")
    return decay / 2 * torch.stack([level.square() for level in levels]).sum()
