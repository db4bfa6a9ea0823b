"""LSQ, learned step size: activations with one step for the tensor, weights with one step for each output channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, check_flag, check_width, in_group, operand, wide
from lobit.quantizers.from_data import FromData, FromWeights
from lobit.quantizers.observer import Sample
from lobit.quantizers.powers import used_scale
from lobit.quantizers.ranges import Grid, Method
from lobit.quantizers.registry import register
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.sign import ONE_BIT, sign
from lobit.quantizers.straight_through import round_by_step, slope_by_step, straight_through
from lobit.quantizers.tracing import functional, traced

SMALLEST = 2.0**-30  # no step is smaller, not even where all weights of a channel are 0


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

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
    return (magnitude if code == ONE_BIT else 2 * magnitude / math.sqrt(code.hi)).clamp(min=SMALLEST).float()


@torch.no_grad()
def keep_positive(step: Tensor) -> None:
    """Put a step that the optimizer took to or below 0 back to the smallest, from where its gradient makes it grow."""
    step.clamp_(min=SMALLEST)


def kept_positive(step: Tensor) -> Tensor:
    """The step for a pass in training, after `keep_positive`; a copy where it may not be moved in place, with the gradient of the step itself."""
    if functional():
        return straight_through(step, step.detach().clamp(min=SMALLEST))
    keep_positive(step)
    return step


def step_gradient(x: Tensor, code: CodeType) -> float:
    """The factor ``1 / sqrt(N hi)`` of the gradient of an activation's step, N values in one sample."""
    sample = x.numel() // len(x) if x.ndim > 1 and len(x) else x.numel()
    return 1.0 / math.sqrt(max(sample, 1) * code.hi)


def training_step(step: Tensor, factor: float) -> Tensor:
    """The step for a pass in training, kept positive; its gradient is multiplied by ``factor``."""
    return scale_gradient(kept_positive(step), factor)


def finite(learned: Tensor, owner: str, what: str) -> Tensor:
    """What was learned, as it is.

    Raises
    ------
    ConfigError
        When it is not finite.
    """
    if not traced():
        sound = torch.isfinite(learned)
        if not bool(sound.all()):
            wrong = learned.detach()[~sound].flatten()[0].item()
            raise ConfigError(
                f"the learned {what} of {owner or 'a quantizer'} is {wrong}; the training diverged or the state is damaged: "
                "train with a lower learning rate, or load another checkpoint"
            )
    return learned


def eval_step(step: Tensor, owner: str, what: str = "step") -> Tensor:
    """The stored step, bit for bit; one at or below 0 counts as the smallest, as the next pass in training would have it.

    Raises
    ------
    ConfigError
        When a step is not finite.
    """
    return finite(step, owner, what).clamp(min=SMALLEST)


@register("lsq")
class LSQ(FromData):
    """Activations with a learned step, one for the whole tensor: `lsq`.

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
    power_of_two : bool
        Whether the step that is used is the power of two nearest to the learned one; see `power_of_two`. The first step then is that of the least squared
        error, as LSQ's own, rounded up, may lie above all values.
    """

    sign_of_input: Tensor

    def __init__(self, bits: int, nonnegative: bool | None = None, power_of_two: bool = False) -> None:
        self.check_bits(bits)
        super().__init__(bits)
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'lsq'")
        if nonnegative is not None and type(nonnegative) is not bool:
            raise ConfigError(f"nonnegative must be True, False or None, not {nonnegative!r}")
        self.step = nn.Parameter(torch.ones(()))
        self._decided = -1 if nonnegative is None else int(nonnegative)  # -1 undecided, 0 signed, 1 non-negative
        self._running = self._decided == 0 and bits == 1  # the sign needs no step
        self.register_buffer("sign_of_input", torch.tensor(self._decided, dtype=torch.int8))
        self.started.fill_(self._running)
        self._given = self._decided
        self._free_step()

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'lsq'")

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

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape, once it has started."""
        code = self.code_type
        if code == ONE_BIT:
            return Quantized(sign(x), self._scale_of_none(x), self.zero)
        step = training_step(self.step, step_gradient(x, code)) if self.training else eval_step(self.step, self.owner)
        step = used_scale(step, self.power_of_two)
        return Quantized(lsq(x, step, code), step, self.zero)

    def slope_in_scale(self, x: Tensor, scale: Tensor) -> Tensor | None:
        """``-v / step`` inside the range, 0 outside, with ``v = x / step``: what `lsq` multiplies the gradient of a code with."""
        return None if self.code_type == ONE_BIT else slope_by_step(x, scale, self.code_type.lo, self.code_type.hi)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One division by the step; none for the sign."""
        self._check_started()
        return [] if self.code_type == ONE_BIT else [("div", operand(used_scale(eval_step(self.step, self.owner), self.power_of_two)))]

    def take(self, sample: Sample, method: Method | None) -> None:
        """Decide the sign unless it was given, and set the step: LSQ's first one, or that of a method."""
        if self._given < 0:
            if self.bits == 1 and self._decided == 0:
                self.step.requires_grad_(True)
            self._decided = int(sample.low.min() >= 0)
            self.sign_of_input.fill_(self._decided)
            self._free_step()
        code = self.code_type
        if method is None and self.power_of_two and code != ONE_BIT:
            method = MeanSquaredError()
        if method is None:
            self.step.copy_(first_step(sample.magnitude, code).squeeze())
        elif code != ONE_BIT:
            self.step.copy_(method.fit(sample, Grid(code.lo, code.hi)).scale.clamp(min=SMALLEST).squeeze())

    def reset(self) -> None:
        """Forget the step, and the sign unless it was given."""
        self._decided, self._running = self._given, self._given == 0 and self.bits == 1
        self.sign_of_input.fill_(self._decided)
        self.started.fill_(self._running)
        self.step.requires_grad_(True)
        self._free_step()

    def _free_step(self) -> None:
        """A step that nothing uses asks for no gradient: data-parallel training waits for every parameter that does; in it the step is counted already, and has one of 0."""
        if self.bits == 1 and self._decided == 0 and not in_group():
            self.step.requires_grad_(False)

    def keep_in_range(self) -> None:
        """Put a step that the optimizer took to or below 0 back to the smallest."""
        keep_positive(self.step)

    def _needs_data(self, why: str) -> str:
        return f"{super()._needs_data(why)}; nonnegative= settles the sign alone"

    def _after_load(self) -> None:
        super()._after_load()
        self._decided = int(self.sign_of_input)
        self._free_step()


@register("lsq")
class LSQWeights(FromWeights):
    """Weights with a learned step for each output channel, see `lsq`: ``signed`` codes of 2 to 8 bits, or the signs -1/+1.

    The steps follow the weights, ``2 mean|w_o| / sqrt(hi)`` (``mean|w_o|`` with one bit), until the first pass in training, which makes them parameters of their own; they start
    anew when weights without quantizer state are loaded. The gradient of a step is multiplied by ``1 / sqrt(N hi)``, N weights of the channel.

    Parameters
    ----------
    bits : int
        1 to 8.
    power_of_two : bool
        Whether the steps that are used are the powers of two nearest to the learned ones; see `power_of_two`.
    """

    def __init__(self, bits: int, power_of_two: bool = False) -> None:
        super().__init__()
        self.check_bits(bits)
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'lsq' of weights")
        self.bits = bits
        self.step = nn.Parameter(torch.ones(1))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("width", torch.tensor(bits, dtype=torch.int8))

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8."""
        check_width(bits, 1, "quantizer 'lsq' of weights")

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
        self._attach_once("steps")
        shape = (weight.shape[0], *[1] * (weight.ndim - 1))
        self.step = nn.Parameter(torch.ones(shape, device=weight.device))
        self.started = self.started.to(weight.device)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``."""
        if not self._attached and self.step.ndim != x.ndim:
            raise ConfigError(
                "quantizer 'lsq' of weights does not know how many channels it quantizes; give it to a layer, or call attach(weight) first"
            )
        self._fit(x)
        code = self.code_type
        if not self._is_running() and self.training:
            with torch.no_grad():
                self.step.copy_(self._from_weights(x))
                self.started.fill_(True)
            self._running = True
        if self.training:
            step = training_step(self.step, 1.0 / math.sqrt(x[0].numel() * code.hi))
        else:
            step = eval_step(self.step, self.owner) if self._running else self._from_weights(x)
        step = used_scale(step, self.power_of_two)
        return Quantized(lsq(x, step, code), step, self.zero)

    def take(self, sample: Sample, method: Method) -> None:
        """Set the steps for the weights that a sample holds, one row a channel; for -1/+1 ``mean|w|``, which no method betters."""
        code = self.code_type
        scale = sample.magnitude if code == ONE_BIT else method.fit(sample, Grid(code.lo, code.hi)).scale
        self.step.copy_(scale.clamp(min=SMALLEST).reshape(self.step.shape))
        self.started.fill_(True)
        self._running = True

    def keep_in_range(self) -> None:
        """Put steps that the optimizer took to or below 0 back to the smallest."""
        keep_positive(self.step)

    def _from_weights(self, x: Tensor) -> Tensor:
        return first_step(wide(x.detach()).abs().mean(tuple(range(1, x.ndim)), keepdim=True), self.code_type)
