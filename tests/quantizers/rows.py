"""The table of all quantizers: one row each, with its formula written again in float64 numpy.

A family's rows stand beside its oracle in `tests/quantizers/oracles/<family>.py`, in a list called ROWS; `test_every_quantizer.py` runs every check on every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lobit import quantizers as Q
from lobit.quantizers.base import Role


@dataclass(frozen=True)
class Row:
    """One quantizer: how it is built, and what its formula says.

    Attributes
    ----------
    name, role, bits, settings
        As `lobit.quantizers.get` takes them; one test for each width.
    forward : callable
        ``(quantizer, x) -> (codes, scale)`` from a float32 array, in float64, from the formula alone: the quantizer is read for its settings and learned state only.
    backward : callable
        ``(quantizer, x, g) -> gradient in x`` of ``(values * g).sum()``.
    eval_only_codes : bool
        Whether codes in training are random, so that `forward` holds in eval.
    monotone, symmetric, idempotent : bool
        Properties of the values that hold: rising with x; odd in x away from rounding ties; unchanged when quantized again with the same state.
    refused : str
        Words of the error when a layer with it is exported; "" where it exports and verifies.
    """

    name: str
    role: Role
    bits: tuple[int, ...]
    forward: Callable[[Any, NDArray[Any]], tuple[NDArray[Any], Any]]
    backward: Callable[[Any, NDArray[Any], NDArray[Any]], NDArray[Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    eval_only_codes: bool = False
    monotone: bool = True
    symmetric: bool = False
    idempotent: bool = True
    refused: str = ""

    def build(self, bits: int) -> Any:
        """A fresh quantizer of this row."""
        return Q.get({"name": self.name, **self.settings}, self.role, bits)


def rows() -> list[Row]:
    """All rows of all families."""
    folder = Path(__file__).parent / "oracles"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [row for name in names for row in import_module(f"tests.quantizers.oracles.{name}").ROWS]
