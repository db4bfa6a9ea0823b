"""The models of the zoo in figures: `lobit models`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from lobit.models import create, list_models, model_info
from lobit.recipes import list_recipes, load_recipe
from lobit.report.summary import COLUMNS, si
from lobit.runtime.report import table


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model: the shape of one input (of words: how many), its classes, its weights and the multiply-accumulates of one sample as `cost_of` counts them, and its recipes."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    weights: int
    macs: int
    recipes: tuple[str, ...]
    description: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def model_rows(pattern: str = "*") -> tuple[ModelRow, ...]:
    """The models whose names fit a pattern. They are built without memory, so that the largest takes milliseconds.

    Examples
    --------
    >>> [row.macs for row in model_rows("mnist-mlp")]
    [36806656]
    """
    users: dict[str, list[str]] = {}
    for recipe in list_recipes():
        users.setdefault(load_recipe(recipe).model.name, []).append(recipe)
    names = sorted(list_models(pattern) + list_models(pattern, "words"))
    return tuple(_row(name, users.get(name, [])) for name in names)


def _row(name: str, recipes: Sequence[str]) -> ModelRow:
    info = model_info(name)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = create(name).eval()
        model(torch.empty(1, *info.input_shape) if info.kind == "images" else torch.empty(*info.input_shape, 1, dtype=torch.int64))
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    macs = counter.get_total_flops() // 2  # of products alone; a multiplication and an addition count as two
    return ModelRow(name, info.input_shape, info.num_classes, weights, macs, tuple(recipes), info.description)


def model_table(rows: Sequence[ModelRow]) -> str:
    """A line of figures for each model; below it what it is, and its recipes. 80 columns."""
    figures = [(row.name, "x".join(map(str, row.input_shape)), str(row.classes), si(row.weights), si(row.macs)) for row in rows]
    head, *lines = table(("model", "input", "classes", "weights", "MACs"), figures, right=(2, 3, 4)).splitlines()
    blocks = [head]
    for row, line in zip(rows, lines, strict=True):
        recipes = f"recipes: {', '.join(row.recipes)}" if row.recipes else "no recipe"
        blocks += [line, *_indented(row.description), *_indented(recipes)]
    return "\n".join(blocks)


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
