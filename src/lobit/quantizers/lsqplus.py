"""LSQ+: activations with a learned step and a learned offset."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.quantizers.base import Quantized, check_flag, check_width, operand
from lobit.quantizers.from_data import FromData
from lobit.quantizers.lsq import SMALLEST, eval_step, finite, keep_positive, scale_gradient, step_gradient, training_step
from lobit.quantizers.observer import Sample
from lobit.quantizers.powers import used_scale
from lobit.quantizers.ranges import Grid, Method, with_power
from lobit.quantizers.registry import register
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.straight_through import round_in_range


def lsq_plus(x: Tensor, step: Tensor, offset: Tensor, bits: int) -> Tensor:
    """Codes with a learned step and offset; their value is ``step * code + offset``.

    Forward: ``round(clamp(x / step - offset / step, 0, 2^k - 1))``. Backward: the rounding passes the gradient inside the range, and nothing else is detached, so that the
    value has LSQ+'s gradients, with ``v = (x - offset) / step``: in ``x`` 1 inside, 0 outside; in ``step`` ``round(v) - v`` inside, the
    end of the range outside; in ``offset`` 0 inside, 1 outside.

    References
    ----------
    Bhalgat et al., LSQ+, arXiv 2004.09576, section 3.1.
    """
    return round_in_range(x / step - offset / step, 0, (1 << bits) - 1)


@register("lsq_plus")
class LSQPlus(FromData):
    """Activations with a learned step and a learned real offset, one of each for the tensor: `lsq_plus`.

    For inputs that go a little below zero, as swish and GELU make them: the levels begin at ``offset`` and none is spent where no values are. Real 0
    need not be a level; padding still is real 0, see `Quantized.offset`. The first batch in training, or `lobit.calibrate`, sets both to the least squared
    error. Their gradients are multiplied by ``1 / sqrt(N hi)``, as LSQ's are. Weights beside it are LSQ's.

    Parameters
    ----------
    bits : int
        1 to 8.
    power_of_two : bool
        Whether the step that is used is the power of two nearest to the learned one; see `power_of_two`. The offset stays real.

    References
    ----------
    Bhalgat et al., LSQ+: Improving low-bit quantization through learnable offsets and better initialization, arXiv 2004.09576, section 3.
    """

    def __init__(self, bits: int, power_of_two: bool = False) -> None:
        self.check_bits(bits)
        super().__init__(bits)
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'lsq_plus'")
        self.step = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'lsq_plus'")

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` of ``bits`` bits."""
        return CodeType(Alphabet.UNSIGNED, self.bits)

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape, once it has started."""
        if self.training:
            factor = step_gradient(x, self.code_type)
            step, offset = training_step(self.step, factor), scale_gradient(self.offset, factor)
        else:
            step, offset = (
                eval_step(self.step, self.owner),
                finite(self.offset, self.owner, "offset").clone(),
            )  # without gradient where none is taken
        step = used_scale(step, self.power_of_two)
        return Quantized(lsq_plus(x, step, offset, self.bits), step, self.zero, offset)

    def steps(self) -> list[tuple[str, Tensor]]:
        """A division by the step, then less ``offset / step``."""
        self._check_started()
        step, offset = used_scale(eval_step(self.step, self.owner), self.power_of_two), finite(self.offset, self.owner, "offset")
        return [("div", operand(step)), ("sub", operand(offset / step))]

    def take(self, sample: Sample, method: Method | None) -> None:
        """Set step and offset; to the least squared error by its own rule."""
        grid = Grid(0, self.code_type.hi, offset=True)
        fit = (method or MeanSquaredError()).fit(sample, grid)
        if self.power_of_two:
            fit = with_power(fit, grid)
        self.step.copy_(fit.scale.clamp(min=SMALLEST).squeeze())
        self.offset.copy_(fit.offset.squeeze())

    def keep_in_range(self) -> None:
        """Put a step that the optimizer took to or below 0 back to the smallest."""
        keep_positive(self.step)
