"""The algebra of products: codes as weighted planes or bytes plus a constant.

With ``x = sum_i a_i X_i + b`` and ``w = sum_j c_j W_j + d``, over a patch of K inputs,

    sum x w  =  sum_ij a_i c_j sum(X_i W_j)  +  d sum_i a_i sum(X_i)  +  b sum(w)

where X_i and W_j are planes of 0 and 1, so that ``sum(X_i W_j)`` is a popcount, or bytes. The second term is formed once a patch, the third is a constant of the
output channel. Outside the image x is 0: where 0 is a code its field stands there; `odd` codes have none, so one more plane P marks those taps,
with the coefficient -b. All sums are formed modulo 2^32; the result is exact because `check_graph` bounds it by 2^31 - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.format import ValueType
from lobit.targets.values import Field, pack_planes

Array = NDArray[np.int64]
WORD_COST, BYTE_COST = 11.0, 3.5
"""Instructions on a Cortex-M3: a word of two planes (load, and, count), and a product of two bytes. docs/microcontrollers.md has measurements."""
FLASH_FACTOR = 2.0
"""Planes may take so many times the instructions of bytes: they take fewer bits of flash, the scarcer of the two."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Coefficients a_i, constant b, the field that means 0, and the coefficient of the plane that marks padding (0: none is needed)."""

    coefs: tuple[int, ...]
    base: int
    fill: int
    pad_coef: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Coefficients c_j, constant d, and the packed array: uint32 (O, planes, words), or int8 (O, 4 * words)."""

    coefs: tuple[int, ...]
    base: int
    packed: NDArray[np.generic]
    words: int


def _plane_coefs(bits: int, *, signed: bool) -> tuple[int, ...]:
    top = 1 << (bits - 1)
    return (*(1 << i for i in range(bits - 1)), -top if signed else top)


def activations(x: ValueType, form: str) -> Activations:
    """How codes of a type take part in products."""
    assert x.code is not None
    field, odd = Field.of(x.code), x.code.alphabet is Alphabet.ODD
    if form == "bytes":
        return Activations((field.spacing,), field.base - x.zero, 0 if odd else x.zero - field.base, 0)
    if odd:
        return Activations(tuple(2 << i for i in range(x.code.bits)), x.code.lo, 0, x.code.hi)
    return Activations(_plane_coefs(x.code.bits, signed=bool(field.flip)), -x.zero, x.zero & ((1 << x.code.bits) - 1), 0)


def plane_bits(code: CodeType) -> int:
    """How many planes weights take: `log2` codes become signed numbers."""
    return {2: 2, 3: 4, 4: 8}[code.bits] if code.alphabet is Alphabet.LOG2 else code.bits


def weights(codes: Array, code: CodeType, form: str) -> Weights:
    """Pack weights of shape ``(O, K)``, K in the order of a patch."""
    inputs = codes.shape[1]
    if form == "bytes":
        stored, scale, base = codes, 1, 0
        if code.alphabet is Alphabet.ODD and code.bits == 8:
            stored, scale, base = (codes - 1) // 2, 2, 1
        elif code.alphabet is Alphabet.UNSIGNED and code.bits == 8:
            stored, base = codes - 128, 128
        packed = np.pad(stored.astype(np.int8), ((0, 0), (0, -inputs % 4)))
        return Weights((scale,), base, packed, packed.shape[1] // 4)
    bits, words = plane_bits(code), -(-inputs // 32)
    if code.alphabet is Alphabet.ODD:
        return Weights(tuple(2 << j for j in range(bits)), -code.hi, pack_planes((codes + code.hi) // 2, bits), words)
    signed = code.alphabet is not Alphabet.UNSIGNED
    return Weights(_plane_coefs(bits, signed=signed), 0, pack_planes(codes & ((1 << bits) - 1), bits), words)


def cheaper_form(x: CodeType, uses: list[tuple[CodeType, int]]) -> str:
    """``planes`` or ``bytes`` for codes of a type that products with these (weights, inputs a patch) read."""
    if x.alphabet is Alphabet.ODD or not uses:
        return "planes" if x.bits < 8 else "bytes"
    planes = sum(x.bits * plane_bits(code) * WORD_COST * -(-inputs // 32) for code, inputs in uses)
    return "planes" if planes <= FLASH_FACTOR * sum(BYTE_COST * inputs for _, inputs in uses) else "bytes"
