"""Affine quantizers: a scale and, where asked, an integer zero point, both from data or weights, neither learned."""

from __future__ import annotations

import torch
from torch import Tensor

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, check_flag, check_width, operand, wide
from lobit.quantizers.from_data import FromData, FromWeights
from lobit.quantizers.lsq import SMALLEST
from lobit.quantizers.observer import Observer, Sample
from lobit.quantizers.ranges import Fit, Grid, Method, between, with_power
from lobit.quantizers.registry import register
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.straight_through import round_in_range, straight_through


def affine(x: Tensor, scale: Tensor, zero: int | Tensor, lo: int, hi: int, *, clip: bool = True) -> Tensor:
    """Codes less their zero point, on a uniform grid that holds real 0: their value is ``scale * result``.

    Forward: ``clamp(round(x / scale), lo - zero, hi - zero)``, half to even. Backward: ``g_x = g / scale * 1[lo - zero <= x / scale <= hi - zero]``, without ``clip``
    ``g / scale`` everywhere. Scale and zero are constants.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    scale : Tensor
        Positive, broadcastable to ``x``.
    zero : int or Tensor
        The code of real 0, a whole number from ``lo`` to ``hi``; a tensor is broadcastable to ``x`` and of its dtype.
    lo, hi : int
        The codes' range.

    References
    ----------
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv 1712.05877, section 2.1.

    Examples
    --------
    >>> affine(torch.tensor([-1.0, 0.0, 0.4, 9.0]), torch.tensor(0.5), 1, 0, 3)
    tensor([-1.,  0.,  1.,  2.])
    """
    v = x / scale
    if not isinstance(zero, Tensor):
        return round_in_range(v, lo - zero, hi - zero, clip=clip)
    with torch.no_grad():
        codes = v.round().clamp(lo - zero, hi - zero)
    return straight_through(v + zero, codes, lo, hi) if clip else straight_through(v, codes)


@register("affine")
class AffineActivations(FromData):
    """Activations on a uniform grid that holds real 0: ``value = scale * (code - zero)``.

    Forward: ``code = clamp(round(x / scale), lo - zero, hi - zero) + zero``. Backward: ``g_x = g * 1[lo - zero <= x / scale <= hi - zero]``; scale and zero are constants.
    They are chosen by `lobit.calibrate`, else at the first batch in training by `MeanSquaredError`, and stay.

    Parameters
    ----------
    bits : int
        1 to 8; 2 to 8 where codes may be signed.
    symmetric : bool
        No zero point: codes are ``signed``, or ``unsigned`` after a non-negative input.
    signed : bool, optional
        Whether codes are ``signed``. None means ``unsigned`` with a zero point, and what the data ask for without.
    power_of_two : bool
        Whether the scale is the power of two nearest to the one that was chosen; see `power_of_two`.

    References
    ----------
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv 1712.05877, section 2.1.
    """

    scale: Tensor
    zero_point: Tensor
    is_signed: Tensor

    def __init__(self, bits: int, symmetric: bool = False, signed: bool | None = None, power_of_two: bool = False) -> None:
        if signed is not None and type(signed) is not bool:
            raise ConfigError(f"signed must be True, False or None, not {signed!r}")
        check_flag(symmetric, "symmetric", "quantizer 'affine'")
        given = (0 if not symmetric else -1) if signed is None else int(signed)
        self._check_bits(bits, given)
        super().__init__(bits)
        self.symmetric = symmetric
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'affine'")
        self._given = given
        self._signed = self._given
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("is_signed", torch.tensor(self._given, dtype=torch.int8))

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 1 to 8; 2 to 8 where codes may be signed."""
        self._check_bits(bits, self._given)

    @staticmethod
    def _check_bits(bits: int, given: int) -> None:
        check_width(bits, 2 if given else 1, "quantizer 'affine' of these settings", "one bit is unsigned: signed=False")

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` or ``signed`` of ``bits`` bits."""
        if self._signed < 0 and bool(self.started):
            self._after_load()  # the buffers may have been copied from another model
        if self._signed < 0:
            raise ConfigError(self._needs_data("whether its input is non-negative is undecided"))
        return CodeType(Alphabet.SIGNED if self._signed else Alphabet.UNSIGNED, self.bits)

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape, once it has started."""
        code = self.code_type
        codes = affine(x, self.scale, self.zero, code.lo, code.hi)
        return Quantized(codes + self.zero if self.zero else codes, self.scale, self.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """One division by the scale."""
        self._check_started()
        return [("div", operand(self.scale))]

    def take(self, sample: Sample, method: Method | None) -> None:
        """Set scale and zero; to the least squared error by its own rule."""
        signed = self._given if self._given >= 0 else int(sample.low.min() < 0)
        self.is_signed.fill_(signed)
        self._signed = signed
        grid = Grid(self.code_type.lo, self.code_type.hi, zero=not self.symmetric)
        fit = (method or MeanSquaredError()).fit(sample, grid)
        if self.power_of_two:
            fit = with_power(fit, grid)
        self.scale.copy_(fit.scale.clamp(min=SMALLEST).squeeze())
        self.zero_point.copy_(fit.zero.squeeze())
        self.zero = int(self.zero_point)

    def reset(self) -> None:
        """Forget scale and zero, and the sign unless it was given."""
        super().reset()
        self.scale.fill_(1)
        self.zero_point.zero_()
        self.is_signed.fill_(self._given)
        self._signed, self.zero = self._given, 0

    def _after_load(self) -> None:
        super()._after_load()
        self._signed, self.zero = int(self.is_signed), int(self.zero_point)


@register("affine")
class AffineWeights(FromWeights):
    """Weights on a uniform grid, for each output channel or for all.

    Forward: ``code = clamp(round(w / scale), lo, hi)``; with a zero point ``clamp(round(w / scale), lo - zero, hi - zero)`` for the range 0 .. 2^k - 1: the code less its zero, ``signed`` of
    one bit more. Backward: ``g_w = g * 1[inside the range]``; scale and zero are constants.

    Until `lobit.calibrate` fixes scale and zero, they follow the weights and cover them all, so that the gradient is whole: ``scale = max(high / hi, low / lo)``, or
    ``(high - low) / (2^k - 1)`` with a zero point, ``low <= 0 <= high`` the ends of the channel. With one or two bits a range that covers all leaves most weights 0:
    calibrate before training.

    Parameters
    ----------
    bits : int
        2 to 8; 1 to 7 with a zero point, which costs a bit in the file.
    per_channel : bool
        A scale, and a zero, for each output channel.
    symmetric : bool
        No zero point.
    power_of_two : bool
        Whether scales are powers of two; see `power_of_two`. Those that `lobit.calibrate` chooses become the nearest; those that follow the weights the next
        one up, so that they cover them all.

    References
    ----------
    Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, arXiv 1806.08342, sections 2.1 and 3.1.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, per_channel: bool = True, symmetric: bool = True, power_of_two: bool = False) -> None:
        super().__init__()
        self.per_channel = check_flag(per_channel, "per_channel", "quantizer 'affine' of weights")
        self.symmetric = check_flag(symmetric, "symmetric", "quantizer 'affine' of weights")
        self.power_of_two = check_flag(power_of_two, "power_of_two", "quantizer 'affine' of weights")
        self.check_bits(bits)
        self.bits = bits
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("width", torch.tensor(bits, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(()))
        # a state with zero points is not one of the other grid
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=not symmetric)

    def check_bits(self, bits: int) -> None:
        """Refuse a width other than 2 to 8; 1 to 7 with a zero point."""
        if not self.symmetric and bits == 8:
            raise ConfigError(
                "weights with a zero point have 1 to 7 bits, since they are centred and take one more in the file; use symmetric=True for 8"
            )
        hint = "one bit needs symmetric=False; or use 'magnitude_sign' or 'lsq'"
        check_width(bits, 2 if self.symmetric else 1, "quantizer 'affine' of weights", hint)

    @property
    def code_type(self) -> CodeType:
        """``signed`` of ``bits`` bits, of one more with a zero point."""
        return CodeType(Alphabet.SIGNED, self.bits if self.symmetric else self.bits + 1)

    @property
    def _grid(self) -> Grid:
        return Grid(self.code_type.lo, self.code_type.hi) if self.symmetric else Grid(0, (1 << self.bits) - 1, zero=True)

    def attach(self, weight: Tensor) -> None:
        """Make room for a scale and a zero for each output channel.

        Raises
        ------
        ConfigError
            When the quantizer belongs to a layer already.
        """
        self._attach_once("range")
        shape = (weight.shape[0], *[1] * (weight.ndim - 1)) if self.per_channel else ()
        self.scale = torch.ones(shape, device=weight.device)
        self.zero_point = torch.zeros(shape, dtype=torch.int32, device=weight.device)
        self.started = self.started.to(weight.device)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``(O, 1, ..)``, or ``()`` for all."""
        self._fit(x)
        scale, zero = (self.scale, self.zero_point.to(x.dtype)) if self._is_running() else self._following(x)
        grid = self._grid
        clip = self._running  # a range that follows the weights covers them; rounding must not cut the gradient of its ends
        return Quantized(affine(x, scale, 0 if self.symmetric else zero, grid.lo, grid.hi, clip=clip), scale, self.zero)

    @torch.no_grad()
    def _following(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero that cover the weights."""
        low, high = x.flatten(1).aminmax(dim=1) if self.per_channel else (end[None] for end in x.aminmax())
        fit = between(wide(low), wide(high), self._grid)
        if self.power_of_two:
            fit = with_power(fit, self._grid, cover=True)
        return self._shaped(fit.scale.float(), x), self._shaped(fit.zero.to(x.dtype), x)

    def _shaped(self, values: Tensor, x: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (x.ndim - 1)) if self.per_channel else values.reshape(())

    def take(self, sample: Sample, method: Method) -> None:
        """Fix scale and zero for the weights that a sample holds, one row a channel."""
        if not self.per_channel:
            observer = Observer()
            observer.see(sample.values, self.owner)
            sample = observer.sample()
        fit: Fit = method.fit(sample, self._grid)
        if self.power_of_two:
            fit = with_power(fit, self._grid)
        self.scale.copy_(fit.scale.clamp(min=SMALLEST).reshape(self.scale.shape))
        self.zero_point.copy_(fit.zero.reshape(self.zero_point.shape))
        self.started.fill_(True)
        self._running = True
