"""Learned widths: a price on bits makes them fall, and they are fixed for the last epochs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, operand
from lobit.quantizers.from_data import FIRST_BATCH, FromData, FromWeights
from lobit.quantizers.learned_range import LearnsBits, learned_bits
from lobit.quantizers.observer import Sample
from lobit.quantizers.ranges import Method
from lobit.quantizers.registry import register


@register("learned_bits")
class LearnedBits(LearnsBits, FromData):
    """Activations whose width is learned, with step and clipping level, one of each for the tensor.

    Forward: ``n = round(top / step)``, ``code = round(clamp(x / step, lo, n))``, with ``lo = 0`` after a non-negative input, else ``-n``; ``unsigned`` or ``signed`` codes of the
    fewest bits that hold n. Backward: as `learned_bits`; of the logarithms of step and clipping level,
    which are the parameters, it is ``g_step * step * ln 2``.

    Both start at the first batch in training, or by `lobit.calibrate`, with the least squared error at ``bits``. What makes a width fall is a price:
    `lobit.training.BitBudget` in the loss. `lobit.training.freeze_bits` then fixes the widths found, and what is left is `lsq`.

    Parameters
    ----------
    bits : int
        2 to 8, the width that it begins with.
    least, most : int
        Limits of the width, 2 to 8.
    nonnegative : bool, optional
        Whether the input has no negative values; decided at the first batch when None.

    References
    ----------
    Uhlich et al., Mixed Precision DNNs: All you need is a good parametrization, arXiv 1905.11452.
    """

    sign_of_input: Tensor

    def __init__(self, bits: int, least: int = 2, most: int = 8, nonnegative: bool | None = None) -> None:
        self.limit(bits, least, most)
        super().__init__(bits)
        if nonnegative is not None and type(nonnegative) is not bool:
            raise ConfigError(f"nonnegative must be True, False or None, not {nonnegative!r}")
        self.log2_step, self.log2_top = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self._given = self._decided = -1 if nonnegative is None else int(nonnegative)  # -1 undecided, 0 signed, 1 non-negative
        self.register_buffer("sign_of_input", torch.tensor(self._decided, dtype=torch.int8))
        self.width.zero_()

    @property
    def signed(self) -> bool:
        """Whether codes have both signs; False while that is undecided."""
        return self._decided == 0

    @property
    def code_type(self) -> CodeType:
        """``unsigned`` or ``signed`` of the width that it has now."""
        if self._decided < 0:
            self._decided = int(self.sign_of_input)  # the buffer may have been copied from another model
        if self._decided < 0:
            raise ConfigError(self._needs_data("whether its input is non-negative is undecided"))
        return CodeType(Alphabet.SIGNED if self.signed else Alphabet.UNSIGNED, self.bits)

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape, once it has started."""
        return self.codes_of(x)

    def steps(self) -> list[tuple[str, Tensor]]:
        """A division by the step; while the width is learned, then the ends of the range."""
        self._check_started()
        step = self.step
        if self.is_fixed():
            return [("div", operand(step))]
        n = (self.top / step).round()
        return [("div", operand(step)), ("min", operand(n)), *([("max", operand(-n))] if self.signed else [])]

    def take(self, sample: Sample, method: Method | None) -> None:
        """Decide the sign unless it was given, and set step and clipping level; to the least squared error by its own rule."""
        if self._given < 0:
            self._decided = int(sample.low.min() >= 0)
            self.sign_of_input.fill_(self._decided)
        self.adopt(sample, method)

    def reset(self) -> None:
        """Begin anew, with the width to begin with; the sign is forgotten unless it was given."""
        super().reset()
        self._running, self._decided = False, self._given
        self.sign_of_input.fill_(self._given)

    def _after_load(self) -> None:
        super()._after_load()
        self._decided = int(self.sign_of_input)


@register("learned_bits")
class LearnedBitsWeights(LearnsBits, FromWeights):
    """Weights whose width is learned, with step and clipping level, one of each for the tensor.

    Forward: ``n = round(top / step)``, ``code = round(clamp(w / step, -n, n))``, ``signed`` codes of the fewest bits that hold n. Backward: as `learned_bits`; of the logarithms of step and
    clipping level, which are the parameters, it is ``g_step * step * ln 2``.

    Both follow the weights, with the least squared error at ``bits``, until the first pass in training makes them parameters of their own. `LearnedBits` says how widths are made
    to fall, and fixed.

    Parameters
    ----------
    bits : int
        2 to 8, the width that it begins with.
    least, most : int
        Limits of the width, 2 to 8.

    References
    ----------
    Uhlich et al., Mixed Precision DNNs: All you need is a good parametrization, arXiv 1905.11452.
    """

    def __init__(self, bits: int, least: int = 2, most: int = 8) -> None:
        self.limit(bits, least, most)
        super().__init__()
        self.log2_step, self.log2_top = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("width", torch.tensor(0, dtype=torch.int8))

    @property
    def code_type(self) -> CodeType:
        """``signed`` of the width that it has now."""
        return CodeType(Alphabet.SIGNED, self.bits)

    def attach(self, weight: Tensor) -> None:
        """Belong to one layer, on its device.

        Raises
        ------
        ConfigError
            When the quantizer belongs to a layer already.
        """
        self._attach_once("step and clipping level")
        self.to(weight.device)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scale of shape ``()``."""
        self._fit(x)
        if not self._is_running() and not self._begin(x):
            with torch.no_grad():
                step, top = (value.float() for value in self.fitted(_all_of(x), None))
            return Quantized(learned_bits(x, step, top, signed=True), step, self.zero)
        return self.codes_of(x)

    @torch.compiler.disable(reason=FIRST_BATCH)  # type: ignore[untyped-decorator, no-untyped-call]
    @torch.no_grad()
    def _begin(self, x: Tensor) -> bool:
        """Keep what follows from the weights, in training."""
        if self.training:
            self.adopt(_all_of(x), None)
            self.started.fill_(True)
            self._running = True
        return self.training

    def take(self, sample: Sample, method: Method) -> None:
        """Set step and clipping level for the weights that a sample holds."""
        self.adopt(_all_of(sample.values), method)
        self.started.fill_(True)
        self._running = True

    def reset(self) -> None:
        """Let step and clipping level follow the weights again, with the width to begin with."""
        super().reset()
        self._running = False


def _all_of(values: Tensor) -> Sample:
    return Sample.of_rows(values.reshape(1, -1))
