"""The vocabulary of low-bit numbers: code alphabets, code types and `Bits("W1A2G6")`.

A *code* is a small integer; its meaning is ``value = scale * (code - zero)``. A *code type* is an alphabet and a width. The list of alphabets is
closed: files, kernels and quantizers all read it from here. This module imports nothing of lobit but its errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lobit.errors import ConfigError

MAX_BITS = 8
FLOAT_BITS = 32


class Alphabet(StrEnum):
    """How the k bits b_(k-1) .. b_0 of a stored field become an integer code."""

    UNSIGNED = "unsigned"  # c = sum 2^i b_i
    SIGNED = "signed"  # two's complement
    ODD = "odd"  # c = sum 2^i (2 b_i - 1): the odd integers; one bit is -1/+1
    TERNARY = "ternary"  # -1, 0, 1 in two's complement of two bits
    LOG2 = "log2"  # 0 and +-2^e; a sign bit above a field that is 0 for zero, else e + 1


_WIDTHS = {
    Alphabet.UNSIGNED: range(1, MAX_BITS + 1),
    Alphabet.SIGNED: range(2, MAX_BITS + 1),
    Alphabet.ODD: range(1, MAX_BITS + 1),
    Alphabet.TERNARY: range(2, 3),
    Alphabet.LOG2: range(2, 5),  # up to 2^6, so that codes fit a signed byte
}


@dataclass(frozen=True, slots=True)
class CodeType:
    """An alphabet and a width; the type of a code.

    Parameters
    ----------
    alphabet : Alphabet or str
        One of ``unsigned``, ``signed``, ``odd``, ``ternary``, ``log2``.
    bits : int
        1 to 8; 2 to 8 for ``signed``, 2 for ``ternary``, 2 to 4 for ``log2``.

    Raises
    ------
    ConfigError
        For an unknown alphabet or a width that the alphabet does not have.

    Examples
    --------
    >>> CodeType("signed", 4).lo, CodeType("signed", 4).hi
    (-8, 7)
    >>> CodeType("odd", 2).levels
    (-3, -1, 1, 3)
    >>> CodeType.parse("unsigned2")
    CodeType(alphabet=<Alphabet.UNSIGNED: 'unsigned'>, bits=2)
    """

    alphabet: Alphabet
    bits: int

    def __post_init__(self) -> None:
        try:
            alphabet = Alphabet(self.alphabet)
        except ValueError:
            allowed = ", ".join(a.value for a in Alphabet)
            raise ConfigError(f"unknown alphabet {self.alphabet!r}; choose one of {allowed}") from None
        object.__setattr__(self, "alphabet", alphabet)
        widths = _WIDTHS[alphabet]
        if type(self.bits) is not int or self.bits not in widths:
            raise ConfigError(f"{alphabet.value} codes have {widths.start} to {widths.stop - 1} bits, not {self.bits!r}")

    @classmethod
    def parse(cls, text: str) -> CodeType:
        """Read the form that files and reports use, such as ``"unsigned2"``."""
        match = re.fullmatch(r"([a-z]+(?:2(?=\d))?)([1-9])", text) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(f"{text!r} is no code type; write an alphabet and a width, such as 'signed4'")
        return cls(match[1], int(match[2]))  # type: ignore[arg-type]  # __post_init__ makes the string an Alphabet

    def __str__(self) -> str:
        return f"{self.alphabet.value}{self.bits}"

    @property
    def lo(self) -> int:
        """The smallest code."""
        match self.alphabet:
            case Alphabet.UNSIGNED:
                return 0
            case Alphabet.SIGNED:
                return -(1 << (self.bits - 1))
            case _:
                return -self.hi

    @property
    def hi(self) -> int:
        """The largest code."""
        match self.alphabet:
            case Alphabet.SIGNED:
                return (1 << (self.bits - 1)) - 1
            case Alphabet.TERNARY:
                return 1
            case Alphabet.LOG2:
                return 1 << ((1 << (self.bits - 1)) - 2)
            case _:
                return (1 << self.bits) - 1

    @property
    def levels(self) -> tuple[int, ...]:
        """Every code, in rising order."""
        if self.alphabet is Alphabet.LOG2:
            powers = tuple(2**e for e in range(2 ** (self.bits - 1) - 1))
            return (*(-p for p in reversed(powers)), 0, *powers)
        return tuple(range(self.lo, self.hi + 1, self.spacing))

    @property
    def spacing(self) -> int:
        """Distance between neighbouring codes of a uniform alphabet: 2 for ``odd``, else 1."""
        return 2 if self.alphabet is Alphabet.ODD else 1

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a code (zero padding then is a code too)."""
        return self.alphabet is not Alphabet.ODD

    @property
    def max_abs(self) -> int:
        """The largest magnitude of a code; what accumulator bounds are made of."""
        return max(-self.lo, self.hi)


_BITS = re.compile(r"(?:W(?P<w>\d+))?(?:A(?P<a>\d+))?(?:G(?P<g>\d+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bits:
    """Widths of weights, activations and gradients, written ``W1A2G6``; a missing letter is 32-bit float.

    Parameters
    ----------
    weights, activations, gradients : int
        1 to 8, or 32 for float. Gradients have 2 to 8, or 32.

    Raises
    ------
    ConfigError
        For a width or a text that is none of these.

    Examples
    --------
    >>> Bits.parse("W1A2")
    Bits(weights=1, activations=2, gradients=32)
    >>> str(Bits.parse("w4a4g6")), str(Bits())
    ('W4A4G6', 'W32A32')
    """

    weights: int = FLOAT_BITS
    activations: int = FLOAT_BITS
    gradients: int = FLOAT_BITS

    def __post_init__(self) -> None:
        for name, low in (("weights", 1), ("activations", 1), ("gradients", 2)):
            width = getattr(self, name)
            if type(width) is not int or not (low <= width <= MAX_BITS or width == FLOAT_BITS):
                raise ConfigError(f"{name} have {low} to {MAX_BITS} bits, or {FLOAT_BITS} for float, not {width!r}")

    @classmethod
    def parse(cls, text: str | Bits) -> Bits:
        """Read ``"W1A2G6"``; a `Bits` passes through."""
        if isinstance(text, Bits):
            return text
        match = _BITS.fullmatch(text) if isinstance(text, str) and text else None
        if match is None:
            raise ConfigError(f"{text!r} is no bit setting; write weights, activations and gradients like 'W1A2G6'")
        return cls(*(int(match[letter] or FLOAT_BITS) for letter in "wag"))

    def __str__(self) -> str:
        gradients = "" if self.gradients == FLOAT_BITS else f"G{self.gradients}"
        return f"W{self.weights}A{self.activations}{gradients}"

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.weights == self.activations == self.gradients == FLOAT_BITS
