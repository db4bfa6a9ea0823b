"""The graph that a file holds: typed values, constants, and nodes in the order they run.

Shapes are PyTorch's logical shapes without the batch axis, ``(C,)``, ``(C, L)`` or ``(C, H, W)``; the batch axis is free. What each operator means stands in
`lobit.format.operators`; `lobit.format.check` derives the type of every value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lobit.bits import CodeType
from lobit.format.packing import pack_codes, unpack_codes

Kind = Literal["f32", "i32", "codes"]


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a value is: its kind, its shape without the batch axis, and for codes their code type and zero."""

    kind: Kind
    shape: tuple[int, ...]
    code: CodeType | None = None
    zero: int = 0

    def __str__(self) -> str:
        what = f"{self.code}" + (f" zero {self.zero}" if self.zero else "") if self.kind == "codes" else self.kind
        return f"{what} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor of the file: float32, int32, or codes in their canonical packing.

    Parameters
    ----------
    shape : tuple of int
        Logical shape; ``(O, I)`` or ``(O, I, kh, kw)`` for codes.
    data : ndarray
        float32 or int32 of ``shape``; for codes the packed little-endian u64 words, shape ``(bits, O, ceil(I * prod(spatial) / 64))``.
    code : CodeType, optional
        The code type, for codes only.
    """

    shape: tuple[int, ...]
    data: NDArray[Any]
    code: CodeType | None = None

    @classmethod
    def from_codes(cls, codes: NDArray[Any], code: CodeType) -> Constant:
        """Pack an integer array of codes, shape ``(O, I, *spatial)``."""
        return cls(tuple(codes.shape), pack_codes(codes, code), code)

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Constant:
        """Hold a float32 or int32 array."""
        return cls(tuple(array.shape), np.ascontiguousarray(array))

    def codes(self) -> NDArray[np.int16]:
        """Unpack to int16 codes of ``shape``."""
        if self.code is None:
            raise TypeError("this constant holds no codes")
        return unpack_codes(self.data, self.shape, self.code)

    @property
    def nbytes(self) -> int:
        """Bytes of the payload, without the padding of the file."""
        return int(self.data.nbytes)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain: an operation and, where it has one, its operand: a role of the node's ``constants``."""

    op: str
    operand: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied to named values.

    Parameters
    ----------
    op : str
        A name of `lobit.format.OPERATORS`.
    name : str
        Unique; the module's path in the model where there is one (``"features.3"``).
    inputs : tuple of str
        Names of values.
    output : str
        Name of the value it makes; unique in the graph.
    attrs : mapping
        As the operator's entry says; plain JSON values (a chain's ``steps`` are `Step` objects).
    constants : mapping of str to str
        Role to name of a constant, such as ``{"weight": "fc.weight"}``.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: inputs with their float shapes, nodes in order, outputs, and constants by name.

    ``types`` is derived, never read from a file: `lobit.format.check_graph` fills it in.
    """

    inputs: Mapping[str, tuple[int, ...]]
    nodes: Sequence[Node]
    outputs: tuple[str, ...]
    constants: Mapping[str, Constant]
    types: Mapping[str, ValueType] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
