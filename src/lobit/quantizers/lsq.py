"""LSQ, learned step size: activations with one step for the tensor, weights with one step for each output channel."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, check_width, constant, operand, wide
from lobit.quantizers.registry import register
from lobit.quantizers.sign import ONE_BIT, sign
from lobit.quantizers.straight_through import round_by_step

_SMALLEST = 2.0**-30  # no step is smaller, not even where all weights of a channel are 0


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.clone()  # a view would forbid moving the step in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def scale_gradient(step: Tensor, factor: float) -> Tensor:
    """``step`` itself, bit for bit; its gradient is multiplied by ``factor``."""
    return _ScaleGradient.apply(step, factor)  # type: ignore[no-any-return, no-untyped-call]


def lsq(x: Tensor, step: Tensor, code: CodeType) -> Tensor:
    """Codes with a learned step.

    Forward: ``round(clamp(x / step, lo, hi))``. Backward: the rounding passes the gradient inside lo .. hi; the division is not detached, so that
    ``step * codes`` has LSQ's gradient in ``step``: ``round(v) - v`` inside, lo or hi outside, with ``v = x / step``.

    With one bit of -1/+1 the codes are the sign of ``v``, and the range is -1 .. 1.

    References
    ----------
    Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equations 1 to 3.
    """
    if code == ONE_BIT:
        return sign(x / step)
    return round_by_step(x, step, code.lo, code.hi)


def first_step(magnitude: Tensor, code: CodeType) -> Tensor:
    """LSQ's start ``2 mean|x| / sqrt(hi)`` from ``magnitude``, the mean in float64; float32, positive. For -1/+1 it is ``mean|x|``, the best step."""
    return (magnitude if code == ONE_BIT else 2 * magnitude / math.sqrt(code.hi)).clamp(min=_SMALLEST).float()


@torch.no_grad()
def _keep_positive(step: Tensor) -> None:
    """Put a step that the optimizer took to or below 0 back to the smallest, from where its gradient makes it grow."""
    step.clamp_(min=_SMALLEST)


def _training_step(step: Tensor, factor: float) -> Tensor:
    """The step for a pass in training, kept positive; its gradient is multiplied by ``factor``."""
    _keep_positive(step)
    return scale_gradient(step, factor)


def _eval_step(step: Tensor, owner: str) -> Tensor:
    """The stored step, bit for bit; one at or below 0 counts as the smallest, as the next pass in training would have it.

    Raises
    ------
    ConfigError
        When a step is not finite.
    """
    if not torch.compiler.is_compiling():
        finite = torch.isfinite(step)
        if not bool(finite.all()):
            wrong = step.detach()[~finite].flatten()[0].item()
            raise ConfigError(
                f"the learned step of {owner or 'a quantizer'} is {wrong}; the training diverged or the state is damaged: "
                "train with a lower learning rate, or load another checkpoint"
            )
    return step.clamp(min=_SMALLEST)


@register("lsq")
class LSQ(ActivationQuantizer):
    """Activations with a learned step, one for the whole tensor.

    The codes are ``unsigned`` after a non-negative input, else ``signed``; with one bit, {0, 1} times the step after a non-negative input, else plain
    -1/+1 (`sign`). Whether the input is non-negative is decided at the first batch in training mode or in `calibrating`, unless it is given; the first
    step ``2 mean|x| / sqrt(hi)`` comes from the same batch. A batch of zeros says nothing, so it is quantized to zeros and the next one decides. The
    gradient of the step is multiplied by ``1 / sqrt(N hi)``, N values in one sample (a row of the first axis), so that it does not depend on the size of
    the batch under a mean loss. The plain sign needs no step, so the parameter then asks for no gradient.

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
        # -1 undecided, 0 signed, 1 non-negative; the Python copies decide branches, so that graphs do not depend on a tensor
        self._decided = -1 if nonnegative is None else int(nonnegative)
        self._running = self._decided == 0 and bits == 1  # the sign needs no step
        self.register_buffer("sign_of_input", torch.tensor(self._decided, dtype=torch.int8))
        self.register_buffer("started", torch.tensor(self._running))
        self.register_buffer("width", torch.tensor(bits, dtype=torch.int8))
        self._fresh = (self._decided, self._running)
        self._settle()

    @property
    def nonnegative(self) -> bool | None:
        """Whether the input has no negative values; None while undecided."""
        return None if self._decided < 0 else bool(self._decided)

    @property
    def code_type(self) -> CodeType:
        """``unsigned``, ``signed``, or for one bit of signed input ``odd``."""
        if self._decided < 0:
            self._decided = int(self.sign_of_input)  # the buffer may have been copied from another model
        if self._decided < 0:
            raise ConfigError(self._needs_data("whether its input is non-negative is undecided"))
        if self._decided:
            return CodeType(Alphabet.UNSIGNED, self.bits)
        return ONE_BIT if self.bits == 1 else CodeType(Alphabet.SIGNED, self.bits)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        if not self._running and not self._start(x):
            return Quantized(torch.zeros_like(x), constant(1.0, x), self.zero)
        code = self.code_type
        if code == ONE_BIT:
            return Quantized(sign(x), constant(1.0, x), self.zero)
        if self.training:
            sample = x.numel() // len(x) if x.ndim > 1 and len(x) else x.numel()
            step = _training_step(self.step, 1.0 / math.sqrt(max(sample, 1) * code.hi))
        else:
            step = _eval_step(self.step, self.owner)
        return Quantized(lsq(x, step, code), step, self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One division by the step; none for the sign."""
        if not self._running and not bool(self.started):
            raise ConfigError(self._needs_data("its step is not set"))
        return [] if self.code_type == ONE_BIT else [("div", operand(_eval_step(self.step, self.owner)))]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it decides on values, once
    @torch.no_grad()
    def _start(self, x: Tensor) -> bool:
        """Take the sign and the first step from a batch; False when it holds only zeros. All processes of a run take the same."""
        if bool(self.started):  # copied from another model, as averages of weights are
            self._after_load()
            return True
        if not (self.training or self.calibrating):
            raise ConfigError(self._needs_data("it is used before calibration: its step is not set"))
        owner = self.owner or "a quantizer"
        if x.numel() == 0:
            raise ConfigError(f"the first batch of {owner} is empty; calibrate with data")
        lowest, magnitude = wide(x.min()), wide(x).abs().mean()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(lowest, dist.ReduceOp.MIN)
            dist.all_reduce(magnitude, dist.ReduceOp.SUM)
            magnitude /= dist.get_world_size()
        if not math.isfinite(magnitude):
            raise ConfigError(
                f"the first batch of {owner} holds values that are not finite; look for NaN in the data or in the layers before it"
            )
        if magnitude == 0:
            return False
        if self._decided < 0:
            self._decided = int(lowest >= 0)
            self.sign_of_input.fill_(self._decided)
            self._settle()
        self.step.copy_(first_step(magnitude, self.code_type))
        self.started.fill_(True)
        self._running = True
        return True

    def reset(self) -> None:
        """Forget the step, and the sign unless it was given."""
        self._decided, self._running = self._fresh
        self.sign_of_input.fill_(self._decided)
        self.started.fill_(self._running)
        self.step.requires_grad_(True)
        self._settle()

    def _settle(self) -> None:
        """A step that nothing uses asks for no gradient: data-parallel training waits for every parameter that does."""
        if self._decided == 0 and self.bits == 1:
            self.step.requires_grad_(False)

    def keep_in_range(self) -> None:
        """Put a step that the optimizer took to or below 0 back to the smallest."""
        _keep_positive(self.step)

    def _needs_data(self, why: str) -> str:
        return (
            f"the quantizer of {self.owner or 'a layer'} has not seen data: {why} (batches of nothing but zeros do not count). Run one training or calibration batch, in train() mode or in "
            "lobit.quantizers.calibrating(model), or load a trained state; nonnegative= settles the sign alone"
        )

    def _after_load(self) -> None:
        self._decided, self._running = int(self.sign_of_input), bool(self.started)
        self._settle()


@register("lsq")
class LSQWeights(WeightQuantizer):
    """Weights with a learned step for each output channel: ``signed`` codes of 2 to 8 bits, or the signs -1/+1.

    The steps follow the weights, ``2 mean|w_o| / sqrt(hi)`` (``mean|w_o|`` with one bit), until the first pass in training, which makes them parameters of their own; they start
    anew when weights without quantizer state are loaded. The gradient of a step is multiplied by ``1 / sqrt(N hi)``, N weights of the channel.

    Parameters
    ----------
    bits : int
        1 to 8.
    """

    started: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = check_width(bits, 1, "quantizer 'lsq' of weights")
        self.step = nn.Parameter(torch.ones(1))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("width", torch.tensor(bits, dtype=torch.int8))
        self._running = False
        self._attached = False

    @property
    def code_type(self) -> CodeType:
        """``signed`` of ``bits`` bits; ``odd`` of one."""
        return ONE_BIT if self.bits == 1 else CodeType(Alphabet.SIGNED, self.bits)

    def attach(self, weight: Tensor) -> None:
        """Make room for one step for each output channel.

        Raises
        ------
        ConfigError
            When the quantizer belongs to a layer already.
        """
        if self._attached:
            raise ConfigError(f"this quantizer holds the steps of {self.owner or 'another layer'}; give each layer a quantizer of its own")
        self._attached = True
        shape = (weight.shape[0], *[1] * (weight.ndim - 1))
        self.step = nn.Parameter(torch.ones(shape, device=weight.device))
        self.started = self.started.to(weight.device)

    def reset(self) -> None:
        """Take the steps from the weights again."""
        self.started.fill_(False)
        self._running = False

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``."""
        code = self.code_type
        if not self._running and not torch.compiler.is_compiling():
            self._running = bool(self.started)  # the buffer may have been copied from another model
        if not self._running and not self.training:
            step = self._from_weights(x)
            return Quantized(lsq(x, step, code), step, self.zero)
        if not self._running:
            with torch.no_grad():
                self.step.copy_(self._from_weights(x))
                self.started.fill_(True)
            self._running = True
        if self.training:
            step = _training_step(self.step, 1.0 / math.sqrt(x[0].numel() * code.hi))
        else:
            step = _eval_step(self.step, self.owner)
        return Quantized(lsq(x, step, code), step, self.zero)

    def keep_in_range(self) -> None:
        """Put steps that the optimizer took to or below 0 back to the smallest."""
        _keep_positive(self.step)

    def _from_weights(self, x: Tensor) -> Tensor:
        return first_step(wide(x.detach()).abs().mean(tuple(range(1, x.ndim)), keepdim=True), self.code_type)

    def _after_load(self) -> None:
        self._running = bool(self.started)
