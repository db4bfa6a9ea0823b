"""LSQ, learned step size: activations with one step for the tensor, weights with one step for each output channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_width, constant, operand
from lobit.quantizers.registry import register
from lobit.quantizers.sign import ONE_BIT, sign
from lobit.quantizers.straight_through import round_in_range

_SMALLEST = 2.0**-30  # a step is never smaller, also where all values are 0


def scale_gradient(step: Tensor, factor: float) -> Tensor:
    """``step`` itself; its gradient is multiplied by ``factor``."""
    scaled = step * factor
    return (step - scaled).detach() + scaled


def lsq(x: Tensor, step: Tensor, code: CodeType) -> Tensor:
    """Codes with a learned step.

    Forward: ``round(clamp(x / step, lo, hi))``. Backward: the rounding passes the gradient inside lo .. hi; the division is not detached, so that
    ``step * codes`` has LSQ's gradient in ``step``: ``round(v) - v`` inside, lo or hi outside, with ``v = x / step``.

    References
    ----------
    Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equations 1 to 3.
    """
    return round_in_range(x / step, code.lo, code.hi)


def first_step(x: Tensor, code: CodeType, dims: tuple[int, ...]) -> Tensor:
    """``2 mean|x| / sqrt(hi)``, LSQ's start, over ``dims``; float32, positive."""
    return (2 * x.detach().double().abs().mean(dims, keepdim=True) / math.sqrt(max(code.hi, 1))).clamp(min=_SMALLEST).float()


@torch.no_grad()
def _keep_positive(step: Tensor) -> None:
    """Project a learned step that the optimizer moved to or below 0 back to the smallest one; its gradient then makes it grow again."""
    step.clamp_(min=_SMALLEST)


@register("lsq")
class LSQ(ActivationQuantizer):
    """Activations with a learned step, one for the whole tensor.

    The codes are ``unsigned`` after a non-negative input, else ``signed``; with one bit, {0, 1} times the step after a non-negative input, else plain
    -1/+1 (`sign`). Whether the input is non-negative is decided at the first batch in training mode, unless it is given.

    Parameters
    ----------
    bits : int
        1 to 8.
    nonnegative : bool, optional
        Whether the input has no negative values; decided from data when None.
    """

    sign_of_input: Tensor
    started: Tensor

    def __init__(self, bits: int, nonnegative: bool | None = None) -> None:
        super().__init__()
        self.bits = check_width(bits, 1, "quantizer 'lsq'")
        if nonnegative not in (None, True, False):
            raise ConfigError(f"nonnegative must be True, False or None, not {nonnegative!r}")
        self.step = nn.Parameter(torch.ones(()))
        # -1 undecided, 0 signed, 1 non-negative; the Python copy decides branches, so that graphs do not depend on a tensor
        self._decided = -1 if nonnegative is None else int(nonnegative)
        self.register_buffer("sign_of_input", torch.tensor(self._decided, dtype=torch.int8))
        self.register_buffer("started", torch.tensor(False))
        self._running = False

    @property
    def nonnegative(self) -> bool | None:
        """Whether the input has no negative values; None while undecided."""
        return None if self._decided < 0 else bool(self._decided)

    @property
    def code_type(self) -> CodeType:
        """``unsigned``, ``signed``, or for one bit of signed input ``odd``."""
        if self._decided < 0:
            raise ConfigError(
                f"the quantizer of {self.owner} has not seen data: whether its input is non-negative is undecided. "
                "Run one training or calibration batch in train() mode, or pass nonnegative="
            )
        if self._decided:
            return CodeType(Alphabet.UNSIGNED, self.bits)
        return ONE_BIT if self.bits == 1 else CodeType(Alphabet.SIGNED, self.bits)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        if not self._running:
            self._start(x)
        code = self.code_type
        if code == ONE_BIT:
            return Quantized(sign(x), constant(1.0, x), self.zero)
        if not self.training:
            return Quantized((x / self.step).clamp(code.lo, code.hi).round(), self.step, self.zero)
        _keep_positive(self.step)
        step = scale_gradient(self.step, 1.0 / math.sqrt(max(x.numel(), 1) * code.hi))
        return Quantized(lsq(x, step, code), step, self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One division by the step; none for the sign."""
        return [] if self.code_type == ONE_BIT else [("div", operand(self.step))]

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        """Take the sign and the first step from the first batch in training mode."""
        if not self.training:
            raise ConfigError(
                f"the quantizer of {self.owner} is used before calibration: its step is not set. "
                "Run one training or calibration batch in train() mode first, or load a trained state"
            )
        if x.numel() == 0:
            raise ConfigError(f"the first batch of {self.owner} is empty; calibrate with data")
        if self._decided < 0:
            self._decided = int(bool((x >= 0).all()))
            self.sign_of_input.fill_(self._decided)
        if self.code_type != ONE_BIT:
            self.step.copy_(first_step(x, self.code_type, tuple(range(x.ndim))).reshape(()))
        self.started.fill_(True)
        self._running = True

    def _after_load(self) -> None:
        self._decided, self._running = int(self.sign_of_input), bool(self.started)


@register("lsq")
class LSQWeights(WeightQuantizer):
    """Weights with a learned step for each output channel; symmetric use of ``signed`` codes of 2 to 8 bits.

    Steps start from the weights, at the first forward pass or when weights without quantizer state are loaded.

    Parameters
    ----------
    bits : int
        2 to 8.
    """

    started: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = check_width(bits, 2, "quantizer 'lsq' of weights", "for one bit use 'magnitude_sign' or 'sign'")
        self.step = nn.Parameter(torch.ones(1))
        self.register_buffer("started", torch.tensor(False))
        self._running = False

    @property
    def code_type(self) -> CodeType:
        """``signed`` of ``bits`` bits."""
        return CodeType(Alphabet.SIGNED, self.bits)

    def attach(self, weight: Tensor) -> None:
        """Make room for one step for each output channel."""
        shape = (weight.shape[0], *[1] * (weight.ndim - 1))
        self.step = nn.Parameter(torch.ones(shape, device=weight.device))

    def reset(self) -> None:
        """Take the steps from the weights again at the next forward pass."""
        self.started.fill_(False)
        self._running = False

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``."""
        if not self._running:
            with torch.no_grad():
                self.step.copy_(first_step(x, self.code_type, tuple(range(1, x.ndim))))
                self.started.fill_(True)
            self._running = True
        code = self.code_type
        if not self.training:
            return Quantized((x / self.step).clamp(code.lo, code.hi).round(), self.step, self.zero)
        _keep_positive(self.step)
        step = scale_gradient(self.step, 1.0 / math.sqrt(x[0].numel() * code.hi))
        return Quantized(lsq(x, step, code), step, self.zero)

    def _after_load(self) -> None:
        self._running = bool(self.started)
