"""What a sweep is asked for: widths of weights and activations, seeds, and the recipe of each of its nets."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from lobit.bits import FLOAT_BITS, MAX_BITS, Bits
from lobit.errors import ConfigError, LobitError
from lobit.recipes import Recipe
from lobit.training import build_model

WIDTHS = (1, 2, 3, 4, FLOAT_BITS)
"""The paper's question: 1 to 4 bits, and float."""
MAX_SEED = 2**32 - 1
_WIDTHS = (frozenset([*range(1, MAX_BITS + 1), FLOAT_BITS]), f"widths are 1 to {MAX_BITS}, or {FLOAT_BITS} for float")
_ALLOWED: dict[str, tuple[Container[int], str]] = {
    "weights": _WIDTHS,
    "activations": _WIDTHS,
    "seeds": (range(MAX_SEED + 1), f"seeds are 0 to {MAX_SEED}"),
}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One net of a sweep: widths of weights and activations, and the seed of its training."""

    weights: int
    activations: int
    seed: int

    @property
    def bits(self) -> str:
        """As ``W1A2``."""
        return f"W{self.weights}A{self.activations}"

    @property
    def name(self) -> str:
        """The name of its folder, as ``w1a2-seed1``."""
        return f"{self.bits.lower()}-seed{self.seed}"

    def recipe(self, base: Recipe) -> Recipe:
        """``base`` with these bits and this seed; bits of gradients stay as they are."""
        gradients = Bits.parse(base.model.bits or Bits()).gradients
        model = base.model.model_copy(update={"bits": str(Bits(self.weights, self.activations, gradients))})
        return base.model_copy(update={"model": model, "seed": self.seed})


@dataclass(frozen=True, slots=True)
class Grid:
    """The combinations of a sweep.

    Parameters
    ----------
    weights, activations : sequence of int
        1 to 8, or 32 for float; none twice.
    seeds : sequence of int
        0 to 2^32 - 1; none twice.

    Raises
    ------
    ConfigError
        Naming the list, the value and what is allowed.

    Examples
    --------
    >>> [cell.name for cell in Grid((1, 32), (2,), (1,)).cells]
    ['w1a2-seed1', 'w32a2-seed1']
    """

    weights: Sequence[int] = WIDTHS
    activations: Sequence[int] = WIDTHS
    seeds: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        for name in ("weights", "activations", "seeds"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every net, seed by seed: a sweep that is stopped early then has whole grids."""
        return tuple(Cell(w, a, seed) for seed in self.seeds for w in self.weights for a in self.activations)


def _checked(name: str, values: Sequence[int]) -> tuple[int, ...]:
    fitting, allowed = _ALLOWED[name]
    try:
        found = tuple(values)
    except TypeError:
        raise ConfigError(f"{name} is {values!r}; give a list of whole numbers: {allowed}") from None
    if not found:
        raise ConfigError(f"{name} is empty; give at least one number: {allowed}")
    for value in found:
        if type(value) is not int or value not in fitting:
            raise ConfigError(f"{name} has {value!r}; {allowed}")
        if found.count(value) > 1:
            raise ConfigError(f"{name} has {value} twice; name each number once")
    return found


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read a list as the shell gives it.

    Raises
    ------
    ConfigError
        Naming the list and the part that is no whole number.

    Examples
    --------
    >>> parse_numbers("weights", "1,2, 32")
    (1, 2, 32)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,10}", part):
            raise ConfigError(
                f"{name} is {text!r}, of which {part!r} is no whole number; write numbers with commas between, such as 1,2,32"
            )
    return tuple(int(part) for part in parts)


def check_models(grid: Grid, base: Recipe) -> None:
    """Build the model of every combination once, ahead of any work.

    Raises
    ------
    ConfigError
        Naming the bits that the model does not take.
    """
    for cell in Grid(grid.weights, grid.activations, grid.seeds[:1]).cells:
        try:
            build_model(cell.recipe(base))
        except LobitError as error:
            raise ConfigError(f"no net with {cell.bits}: {error}") from error
