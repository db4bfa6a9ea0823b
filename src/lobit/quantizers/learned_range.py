"""A step and a clipping level, both learned, whose quotient says how many bits the codes need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.quantizers import fused
from lobit.quantizers.base import Quantized, Quantizer, check_width, wide
from lobit.quantizers.lsq import SMALLEST, finite, lsq
from lobit.quantizers.observer import Sample
from lobit.quantizers.ranges import Grid, Method
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.straight_through import straight_through
from lobit.quantizers.tracing import functional, readable


class _RoundToLevels(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, levels: Tensor, signed: bool) -> Tensor:
        if fused.usable(x):
            hi = float(levels)
            return fused.round_codes(x, step, -hi if signed else 0.0, hi)
        return (x / step).clamp(_low(levels, signed), levels).round_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.signed = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, step, levels = ctx.saved_tensors
        v = x / step
        above, below = v > levels, v < _low(levels, ctx.signed)
        kept, v = torch.where(above | below, 0, grad), torch.where(above | below, 0, v)  # no 0 times infinity
        edge = torch.where(above, grad, 0).sum(dtype=step.dtype)
        if ctx.signed:
            edge = edge - torch.where(below, grad, 0).sum(dtype=step.dtype)
        return kept / step, -(kept * v).sum(dtype=step.dtype) / step, edge, None


def _low(levels: Tensor, signed: bool) -> Tensor:
    return -levels if signed else torch.zeros_like(levels)


def levels_of(step: Tensor, top: Tensor) -> Tensor:
    """The largest code ``n = round(top / step)``; its rounding is straight through."""
    quotient = top / step
    return straight_through(quotient, quotient.detach().round())


def learned_bits(x: Tensor, step: Tensor, top: Tensor, *, signed: bool) -> Tensor:
    """Codes with a learned step and a learned clipping level, which together say how many codes there are.

    Forward: ``n = round(top / step)``, ``code = round(clamp(x / step, lo, n))`` with ``lo = -n`` where ``signed``, else 0. They are codes of ``k`` bits, the least k with
    ``n <= 2^(k-1) - 1``, unsigned ``2^k - 1``. Nothing jumps where k changes.

    Backward: both roundings are straight through, and nothing is detached, so that the value ``step * code`` has, with ``v = x / step``: in ``x`` 1 inside the range, 0
    outside; in ``step`` ``round(v) - v`` inside, ``+-(n - top / step)`` outside; in ``top`` 0 inside, +1 above, -1 below where ``signed``. The paper clips to
    ``top`` itself, which need be no whole number of steps, and has 0 for ``step`` outside.

    Parameters
    ----------
    x : Tensor
    step, top : float32 Tensor of shape ()
        Positive, ``top >= step / 2``.
    signed : bool

    References
    ----------
    Uhlich et al., Mixed Precision DNNs: All you need is a good parametrization, arXiv 1905.11452: uniform quantization by step and range.
    """
    return _RoundToLevels.apply(x, step, levels_of(step, top), signed)  # type: ignore[no-any-return, no-untyped-call]


class LearnsBits(Quantizer):
    """What quantizers with a learned width share: step and clipping level, the width that follows from them, and how it is fixed.

    Their logarithms are the parameters: a step of Adam then moves every width alike, and a price on bits has the same slope everywhere.

    Attributes
    ----------
    log2_step, log2_top : Parameter of shape ()
    start, least, most : int
        The width that it begins with, and those that it stays between.
    width : Tensor
        0 while the width is learned, else the one that `freeze` fixed.
    """

    log2_step: nn.Parameter
    log2_top: nn.Parameter
    started: Tensor
    width: Tensor
    start: int
    _fixed = 0  # a Python copy of ``width``

    def limit(self, bits: int, least: int, most: int) -> None:
        """Check and store the width to begin with and its limits."""
        for name, width in (("least", least), ("most", most)):
            check_width(width, 2, f"{name} of quantizer 'learned_bits'")
        self.least, self.most = least, most
        self.check_bits(bits)
        self.start = bits

    def check_bits(self, bits: int) -> None:
        """Refuse a width to begin with that is not between ``least`` and ``most``."""
        check_width(bits, 2, "quantizer 'learned_bits'")
        if not self.least <= bits <= self.most:
            raise ConfigError(
                f"quantizer 'learned_bits' begins with {bits} bits and stays between least={self.least} and most={self.most}; the first must lie between the others"
            )

    @property
    def signed(self) -> bool:
        """Whether codes have both signs."""
        return True

    @property
    def is_learning(self) -> bool:
        """Whether the width is learned now: it has started and is neither fixed nor switched off."""
        return not self.off and bool(self.started) and not self.is_fixed()

    @property
    def step(self) -> Tensor:
        """The step, float32 of shape (); the same on every machine, as float64 is rounded once."""
        return torch.exp2(wide(finite(self._log2_step(), self.owner, "step"))).float()

    @property
    def top(self) -> Tensor:
        """The clipping level, float32 of shape ()."""
        return torch.exp2(wide(finite(self.log2_top, self.owner, "clipping level"))).float()

    @property
    def bits(self) -> int:
        """The width now: that of the largest code, a whole number; the one to begin with until it has started."""
        if self.is_fixed():
            return self._fixed
        if not readable(self.started):
            return self.most  # values are not read then; what is asked of them are bounds
        if not bool(self.started):
            return self.start
        return int((self.top / self.step).round()).bit_length() + self.signed

    @bits.setter
    def bits(self, bits: int) -> None:
        self.start = bits

    def real_bits(self) -> Tensor:
        """`bits` as a float32 Tensor of shape (), with the gradient of ``log2(top / step + 1)``.

        A constant unless the width is learned now, and where it has come down to ``least``: below that there is nothing to save.
        """
        bits = torch.full((), float(self.bits), device=self.log2_step.device)
        if not self.is_learning or int(bits) <= self.least:
            return bits
        # a copy, since the next pass in training moves the parameter in place
        return straight_through(torch.log2(torch.exp2(self.log2_top - self.log2_step.clone()) + 1), bits)

    @torch.no_grad()
    def freeze(self) -> int:
        """Fix the width that was found, and return it; from then on it is `lsq` of this width, for the tensor, with the same range: ``step <- step * n / hi``.

        Raises
        ------
        ConfigError
            When it has not started.
        """
        if not bool(self.started):
            raise ConfigError(
                f"the width of {self.owner or 'a quantizer'} cannot be fixed: it has not seen a batch in training. Train first, or use a quantizer of one width"
            )
        if not self.is_fixed():
            bits, step = self.bits, self.step
            self.log2_step.copy_(torch.log2(wide(step * (self.top / step).round() / self._hi(bits))))
            self.width.fill_(bits)
            self._fixed = bits
        return self._fixed

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Put a step that the optimizer moved too far back to where the width stays between its limits."""
        if not self._fixed:
            self.log2_step.copy_(self._log2_step())

    def reset(self) -> None:
        """Begin anew, with the width to begin with."""
        self.started.fill_(False)
        self.width.zero_()
        self._fixed = 0

    def _hi(self, bits: int) -> int:
        return (1 << (bits - self.signed)) - 1

    def _log2_step(self) -> Tensor:
        """Within the limits that `keep_in_range` keeps; the clipping level says which."""
        if self.is_fixed():
            return self.log2_step
        # a copy, since the next pass in training moves the parameter in place
        return self.log2_step.clone().clamp(self.log2_top - math.log2(self._hi(self.most)), self.log2_top - math.log2(self._hi(self.least)))

    def is_fixed(self) -> bool:
        """Whether the width was fixed."""
        if not self._fixed and readable(self.width):
            self._fixed = int(self.width)  # the buffer may have been copied from another model
        return bool(self._fixed)

    def codes_of(self, x: Tensor) -> Quantized:
        """Codes of a tensor, once it has started."""
        if self.training and not functional():  # `step` is within the range in either case
            self.keep_in_range()
        step = self.step
        if not self.is_fixed():
            return Quantized(learned_bits(x, step, self.top, signed=self.signed), step, self.zero)
        if self.training:
            step = step + 0 * self.log2_top  # data-parallel training waits for every parameter's gradient
        return Quantized(lsq(x, step, self.code_type), step, self.zero)

    def fitted(self, sample: Sample, method: Method | None) -> tuple[Tensor, Tensor]:
        """Step and clipping level for values that were seen, at the width it has; float64."""
        hi = self._hi(self.bits)
        fit = (method or MeanSquaredError()).fit(sample, Grid(-hi if self.signed else 0, hi))
        step = fit.scale.clamp(min=SMALLEST).squeeze().to(self.log2_step.device)
        return step, step * hi

    def adopt(self, sample: Sample, method: Method | None) -> None:
        """Keep what is `fitted`."""
        for learned, value in zip((self.log2_step, self.log2_top), self.fitted(sample, method), strict=True):
            learned.copy_(torch.log2(value))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}width")
        if isinstance(stored, Tensor):
            self.width.copy_(stored)  # learned, so that none is refused
        self._fixed = 0
        super()._load_from_state_dict(state_dict, prefix, *args)
