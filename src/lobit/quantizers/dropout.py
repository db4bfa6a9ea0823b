"""Dropout of activations that are codes."""

from __future__ import annotations

import torch
from torch import Tensor

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized


class CodeDropout(ActivationQuantizer):
    """A quantizer with dropout behind it: dropped activations are 0, whether or not 0 is a code.

    Training: ``codes <- zero`` with probability p, ``scale <- scale / (1 - p)``, so that sums stay integers. Eval: the quantizer alone.
    `torch.nn.Dropout` before a quantizer is another thing: the sign of a dropped activation is +1, and a clipped range cuts what dropout enlarged.

    Parameters
    ----------
    quantizer : ActivationQuantizer
    p : float
        From 0 to less than 1.

    References
    ----------
    Srivastava et al., Dropout, JMLR 15, 2014; its place behind the binarization follows the released code of arXiv 1609.07061.
    """

    def __init__(self, quantizer: ActivationQuantizer, p: float) -> None:
        if not 0 <= p < 1:
            raise ConfigError(f"dropout drops with a probability from 0 to less than 1, not {p!r}")
        super().__init__()
        self.quantizer = quantizer
        self.p = p

    def attach(self, shape: tuple[int, ...], device: torch.device | None = None) -> None:
        """The quantizer's."""
        self.quantizer.attach(shape, device)

    @property
    def code_type(self) -> CodeType:
        """The quantizer's."""
        return self.quantizer.code_type

    @property
    def fractions(self) -> bool:
        """The quantizer's."""
        return self.quantizer.fractions

    @property
    def undecided(self) -> bool:
        """The quantizer's."""
        return self.quantizer.undecided

    @property
    def observes(self) -> bool:
        """The quantizer's."""
        return self.quantizer.observes

    @property
    def zero(self) -> int:
        """The quantizer's, which may take it from data."""
        return self.quantizer.zero

    @zero.setter
    def zero(self, zero: int) -> None:
        self.quantizer.zero = zero

    @property
    def owner(self) -> str:
        """The layer, which the quantizer itself names in its errors."""
        return self.quantizer.owner

    @owner.setter
    def owner(self, name: str) -> None:
        self.quantizer.owner = name

    @property
    def off(self) -> bool:
        """Whether the quantizer lets floats through; dropout stays."""
        return self.quantizer.off

    @off.setter
    def off(self, off: bool) -> None:
        self.quantizer.off = off

    def _through(self, x: Tensor) -> Quantized:
        return self.forward(x)

    def set_bits(self, bits: int) -> None:
        """Change the quantizer's width."""
        self.quantizer.set_bits(bits)

    def check_bits(self, bits: int) -> None:
        """Refuse a width that the quantizer cannot have."""
        self.quantizer.check_bits(bits)

    def reset(self) -> None:
        """Forget the quantizer's learned state."""
        self.quantizer.reset()

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        quantized: Quantized = self.quantizer(x)
        if not self.training or self.p == 0:
            return quantized
        if quantized.offset is not None:
            raise ConfigError(
                f"dropout of codes needs codes of which one is real 0; quantizer {self.quantizer.alias!r} has a learned offset"
            )
        dropped = quantized.centred() * (torch.rand_like(x) >= self.p)
        codes = dropped + quantized.zero if quantized.zero else dropped
        return Quantized(codes, quantized.scale / (1 - self.p), quantized.zero)

    def steps(self) -> list[tuple[str, Tensor]]:
        """The quantizer's."""
        return self.quantizer.steps()

    def extra_repr(self) -> str:
        """The probability, for printing."""
        return f"p={self.p}"
