"""Values as the generated C holds them: what stands in the arena, in which form, and where.

Everything is channels-last: element ``pixel * channels + channel``. Floats and sums take a 32-bit word each. Codes are dense bit planes (bit e of plane i at
word ``i * plane_words + e // 32``), or bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet, CodeType
from lobit.format import ValueType

WORD_BITS = 32
KINDS = {"planes": "LB_PLANES", "bytes": "LB_BYTES", "i32": "LB_SUMS", "f32": "LB_FLOATS"}


@dataclass(frozen=True, slots=True)
class Field:
    """How a code type stands in memory: ``code = base + spacing * level``; a plane's field is ``level ^ flip``."""

    base: int
    spacing: int
    flip: int

    @classmethod
    def of(cls, code: CodeType) -> Field:
        """The field of an alphabet of activations."""
        if code.alphabet in (Alphabet.SIGNED, Alphabet.TERNARY):
            half = 1 << (code.bits - 1)
            return cls(-half, 1, half)
        return cls(code.lo, code.spacing, 0)


@dataclass(slots=True, eq=False)
class Value:
    """A value of the program.

    Parameters
    ----------
    name : str
        Its name in the graph.
    type : ValueType
        Kind, shape, code type and zero.
    form : str
        ``planes``, ``bytes``, ``i32`` or ``f32``.
    order : tuple of int
        (channels, pixels) of the channels-last order in which its elements stand; a flattened image keeps the image's.
    external : bool
        Whether it is an input of the network, in PyTorch's order in the caller's memory.
    shares : Value, optional
        The value whose memory it is: a flattened image is the image.
    offset : int
        Word of the arena where it begins; set by `lobit.targets.source`.
    """

    name: str
    type: ValueType
    form: str
    order: tuple[int, int]
    external: bool = False
    shares: Value | None = None
    offset: int = -1

    @property
    def root(self) -> Value:
        """The value that owns the memory."""
        return self if self.shares is None else self.shares.root

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.type.shape)

    @property
    def plane_words(self) -> int:
        """Words of one plane."""
        return -(-self.elements // WORD_BITS)

    @property
    def words(self) -> int:
        """Words of the arena."""
        match self.form:
            case "planes":
                assert self.type.code is not None
                return self.plane_words * self.type.code.bits
            case "bytes":
                return -(-self.elements // 4)
            case _:
                return self.elements

    @property
    def literal(self) -> str:
        """Initializer of its ``lb_value``."""
        code = self.type.code
        field = Field.of(code) if code else Field(0, 1, 0)
        bits = code.bits if code else 0
        return f"{{{KINDS[self.form]}, {bits}, {field.flip}, {field.spacing}, {field.base}, {self.plane_words if self.form == 'planes' else 0}}}"

    def memory(self, array: NDArray[np.generic]) -> NDArray[np.uint32]:
        """The words that hold one sample, an array in PyTorch's order (of the image, for a flattened one)."""
        flat = np.ascontiguousarray(np.asarray(array).reshape(self.order).T).reshape(-1)
        match self.form:
            case "f32":
                return flat.astype(np.float32).view(np.uint32)
            case "i32":
                return flat.astype(np.int32).view(np.uint32)
        assert self.type.code is not None
        field = Field.of(self.type.code)
        levels = ((flat.astype(np.int64) - field.base) // field.spacing).astype(np.uint8)
        if self.form == "bytes":
            return np.pad(levels, (0, -len(levels) % 4)).view("<u4").astype(np.uint32)
        return pack_planes(levels ^ field.flip, self.type.code.bits).reshape(-1)


def pack_planes(fields: NDArray[np.integer], bits: int) -> NDArray[np.uint32]:
    """Unsigned fields of shape ``(..., n)`` to words of shape ``(..., bits, ceil(n / 32))``."""
    padded = np.pad(fields, [(0, 0)] * (fields.ndim - 1) + [(0, -fields.shape[-1] % WORD_BITS)])
    planes = np.stack([(padded >> bit) & 1 for bit in range(bits)], axis=-2).astype(np.uint8)
    return np.ascontiguousarray(np.packbits(planes, axis=-1, bitorder="little")).view("<u4").astype(np.uint32)
