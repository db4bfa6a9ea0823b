"""Canonical packing of codes into little-endian u64 words, plane-major: one row of words for each output, its bits the inputs in channels-last order.

Bit ``s * I + i`` of a row is channel i at position s of the kernel (row by row), so a kernel of few channels packs as densely as one of many; unused bits
at the end of a row are zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.errors import FormatError

WORD_BITS = 64
WORD = np.dtype("<u8")


def packed_shape(shape: tuple[int, ...], code: CodeType) -> tuple[int, ...]:
    """Shape of the packed words of codes of shape ``(O, I, *spatial)``: ``(bits, O, ceil(I * prod(spatial) / 64))``."""
    return (code.bits, shape[0], -(-math.prod(shape[1:]) // WORD_BITS))


def fields_of_codes(codes: NDArray[Any], code: CodeType) -> NDArray[np.uint8]:
    """The stored field, an unsigned integer of ``code.bits`` bits, of each code.

    Raises
    ------
    ValueError
        When a code is not one of the alphabet's.
    """
    wide = codes.astype(np.int64)
    if not np.isin(wide, code.levels).all():
        raise ValueError(f"codes of type {code} must be among {code.lo}..{code.hi}; found {wide.min()}..{wide.max()}")
    match code.alphabet:
        case Alphabet.ODD:
            wide = (wide + code.hi) // 2
        case Alphabet.LOG2:
            exponent = np.zeros_like(wide)
            nonzero = wide != 0
            exponent[nonzero] = np.round(np.log2(np.abs(wide[nonzero]))).astype(np.int64) + 1
            wide = exponent | ((wide < 0).astype(np.int64) << (code.bits - 1))
        case _:
            wide &= 2**code.bits - 1
    return wide.astype(np.uint8)


def codes_of_fields(fields: NDArray[np.uint8], code: CodeType) -> NDArray[np.int16]:
    """The inverse of `fields_of_codes`.

    Raises
    ------
    FormatError
        For a field that the alphabet does not use (ternary -2, log2's negative zero).
    """
    wide = fields.astype(np.int16)
    half = 1 << (code.bits - 1)
    match code.alphabet:
        case Alphabet.UNSIGNED:
            return wide
        case Alphabet.ODD:
            return wide * 2 - code.hi
        case Alphabet.LOG2:
            if (wide == half).any():
                raise FormatError("a log2 code is a negative zero; the file is damaged")
            exponent = wide & (half - 1)
            magnitude = np.where(exponent == 0, 0, 1 << np.maximum(exponent - 1, 0))
            return np.where(wide & half, -magnitude, magnitude).astype(np.int16)
        case _:
            wide = np.where(wide & half, wide - 2 * half, wide).astype(np.int16)
            if code.alphabet is Alphabet.TERNARY and (wide == -2).any():
                raise FormatError("a ternary code is -2; the file is damaged")
            return wide


def pack_codes(codes: NDArray[Any], code: CodeType) -> NDArray[np.uint64]:
    """Pack codes of shape ``(O, I, *spatial)`` to words of shape ``(bits, O, ceil(I * prod(spatial) / 64))``.

    Examples
    --------
    >>> pack_codes(np.array([[1, -1, 1]]), CodeType("odd", 1))
    array([[[5]]], dtype=uint64)
    """
    fields = np.moveaxis(fields_of_codes(codes, code), 1, -1)
    fields = fields.reshape(len(fields), math.prod(fields.shape[1:]))
    tail = -fields.shape[-1] % WORD_BITS
    fields = np.pad(fields, [(0, 0)] * (fields.ndim - 1) + [(0, tail)])
    planes = np.stack([(fields >> bit) & 1 for bit in range(code.bits)])
    # contiguous: with an axis of length 1 packbits may return an array that view() refuses
    return np.ascontiguousarray(np.packbits(planes, axis=-1, bitorder="little")).view(WORD)


def unpack_codes(words: NDArray[np.uint64], shape: tuple[int, ...], code: CodeType) -> NDArray[np.int16]:
    """Unpack words to int16 codes of ``shape``, the inverse of `pack_codes`."""
    rows, channels, *spatial = shape
    inputs = math.prod(shape[1:])
    octets = np.ascontiguousarray(words, WORD).view(np.uint8)
    if not octets.size:
        return np.zeros(shape, np.int16)
    planes = np.unpackbits(octets, axis=-1, count=inputs, bitorder="little")
    fields = np.zeros((rows, inputs), np.uint8)
    for bit in range(code.bits):
        fields |= planes[bit] << np.uint8(bit)
    return np.ascontiguousarray(np.moveaxis(codes_of_fields(fields, code).reshape(rows, *spatial, channels), -1, 1))


def check_tail(words: NDArray[np.uint64], inputs: int, name: str) -> None:
    """Raise `FormatError` unless every bit beyond the last of a row's ``inputs`` is zero."""
    used = inputs % WORD_BITS
    if used and words.size and (words[..., -1] >> np.uint64(used)).any():
        raise FormatError(f"tensor {name!r} has bits set beyond its {inputs} inputs; the file is damaged")
