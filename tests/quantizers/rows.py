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

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One quantizer: how it is built, and what its formula says.

    Weights have shape (3, n), output channels first; activations and gradients (n, 3), samples first.

    Attributes
    ----------
    name, role, bits, settings
        As `lobit.quantizers.get` takes them; one test for each width.
    forward : callable or None
        ``(quantizer, x) -> (codes, scale)``, or ``(codes, scale, offset)``, from a float32 array, in float64, from the formula alone: the quantizer is read for its
        settings and learned state only. None where codes are random in eval too, as gradients' are.
    backward : callable or None
        ``(quantizer, x, g) -> gradient in x`` of ``(values * g).sum()``; None for gradients, which have none.
    eval_only_codes : bool
        Whether codes in training are random, or made in less than the formula's precision, so that `forward` holds in eval.
    monotone, symmetric, idempotent : bool
        Properties of the values that hold: rising with x along each channel; odd in x away from rounding ties; unchanged when quantized again with the same state.
    refused : str
        Words of the error when a layer with it is exported, or when its code type is asked for; "" where it exports and verifies. Gradients never are exported.
    mean : callable or None
        ``(quantizer, x) -> mean of the values`` over many draws in training, for stochastic quantizers; x is (1, n) for weights and (n, 3) else.
    tolerance : float
        Of gradients, relative.
    rounding : float
        How far an input may be from the one whose float64 codes are the float32 ones, relative to itself: both may round a quotient to another side of a tie.
    slack : float
        The same, absolute: for formulas that subtract, where the relative error has no bound.
    columns : int, optional
        How many inputs its weights have, for quantizers whose state depends on it; any number where None.
    """

    name: str
    role: Role
    bits: tuple[int, ...]
    forward: Callable[[Any, Array], tuple[Any, ...]] | None
    backward: Callable[[Any, Array, Array], Array] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    eval_only_codes: bool = False
    monotone: bool = True
    symmetric: bool = False
    idempotent: bool = True
    refused: str = ""
    mean: Callable[[Any, Array], Array] | None = None
    tolerance: float = 1e-5
    rounding: float = 2.0**-22
    slack: float = 0.0
    columns: int | None = None

    def __str__(self) -> str:
        settings = "".join(f"-{name}={value}" for name, value in self.settings.items())
        return f"{self.role}-{self.name}{settings}"

    def build(self, bits: int) -> Any:
        """A fresh quantizer of this row."""
        return Q.get({"name": self.name, **self.settings}, self.role, bits)

    def nearby(self, x: Array) -> list[Array]:
        """``x``, and all of it moved up and down by what rounding may make of it."""
        move = abs(x.astype("float64")) * self.rounding + self.slack
        return [x, (x + move).astype("float32"), (x - move).astype("float32")]


def rows() -> list[Row]:
    """All rows of all families."""
    folder = Path(__file__).parent / "oracles"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [row for name in names for row in import_module(f"tests.quantizers.oracles.{name}").ROWS]
