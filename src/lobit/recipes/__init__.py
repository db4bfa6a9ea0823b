"""Recipes: YAML files that say all of a training run. The shipped ones go by name, others by path."""

from __future__ import annotations

from lobit.extras import require

require("lobit.recipes", "yaml", "pydantic")

import difflib
import os
import reprlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lobit.errors import ConfigError
from lobit.recipes.schema import (
    BopSpec,
    DataSpec,
    DistillSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    SGDSpec,
    ShiftAdaMaxSpec,
    WatchSpec,
)
from lobit.strict_yaml import MAX_BYTES, parse_yaml

_OPTIMIZERS: dict[str, type[OptimizerSpec]] = {"adam": OptimizerSpec, "sgd": SGDSpec, "shift-adamax": ShiftAdaMaxSpec, "bop": BopSpec}
_PARTS: list[tuple[str, type[BaseModel]]] = [
    ("model.", ModelSpec),
    ("data.", DataSpec),
    *(("optimizer.", spec) for spec in _OPTIMIZERS.values()),
    ("schedule.", ScheduleSpec),
    ("distill.", DistillSpec),
    ("watch.", WatchSpec),
    ("", Recipe),
]


def list_recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files("lobit.recipes").iterdir() if entry.name.endswith(".yaml"))


def load_recipe(recipe: str | os.PathLike[str] | Recipe, **overrides: Any) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    recipe : str, path-like or Recipe
        A shipped name, or the path of a YAML file.
    **overrides
        Top-level fields to replace, such as ``epochs=2``; None leaves a field as it is.

    Raises
    ------
    ConfigError
        Naming the recipe, the field, its value and what is allowed.
    """
    if isinstance(recipe, Recipe):
        name, fields = "the recipe", recipe.model_dump()
    else:
        if not isinstance(recipe, (str, os.PathLike)):
            raise ConfigError(f"a recipe is a name, the path of a YAML file or a Recipe, not {type(recipe).__name__}")
        name = os.fspath(recipe)
        fields = _parse(name, _read(name))
    fields |= {field: value for field, value in overrides.items() if value is not None}
    return check_recipe(repr(name), fields)


def check_recipe(name: str, fields: Mapping[str, Any]) -> Recipe:
    """A recipe from its fields.

    Raises
    ------
    ConfigError
        Naming the field, its value and what is allowed.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"recipe {name}: {'; '.join(_explain(problem) for problem in error.errors())}") from None


def _read(name: str) -> bytes:
    if name in list_recipes():
        return (files("lobit.recipes") / f"{name}.yaml").read_bytes()
    path = Path(name)
    if not (path.suffix in (".yaml", ".yml") or os.sep in name):
        close = difflib.get_close_matches(name, list_recipes(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(list_recipes())}, or give the path of a .yaml file"
        raise ConfigError(f"unknown recipe {name!r}; {hint}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"recipe {name!r} has more than {MAX_BYTES} bytes; a recipe is a short YAML file")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read recipe {name!r}: {error.strerror}; shipped recipes are {', '.join(list_recipes())}") from error


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    fields = parse_yaml(f"recipe {name!r}", raw)
    if not isinstance(fields, dict):
        raise ConfigError(f"recipe {name!r} must be a mapping of fields such as model, data and epochs")
    return fields


def _explain(problem: Any) -> str:
    """One line for a pydantic error: where, what, and for an unknown field the nearest known one."""
    parts = [str(part) for part in problem["loc"]]
    optimizer = parts.pop(1) if parts[0:1] == ["optimizer"] and parts[1:2] and parts[1] in _OPTIMIZERS else ""  # the part of the union
    where = ".".join(parts) or "the whole"
    if problem["type"] == "extra_forbidden":
        owners = [name for name, spec in _OPTIMIZERS.items() if parts[-1] in spec.model_fields]
        if optimizer and owners:
            return f"{where!r} belongs to the optimizer {' and '.join(owners)}, not to {optimizer}; remove it or name that optimizer"
        known = {field: prefix + field for prefix, model in _PARTS for field in model.model_fields}
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        return f"unknown field {where!r}" + (f", did you mean {known[close[0]]!r}?" if close else "; remove it")
    got = "" if problem["type"] == "missing" else f" (got {reprlib.repr(problem['input'])})"
    return f"{where}: {problem['msg']}{got}"


__all__ = [
    "BopSpec",
    "DataSpec",
    "DistillSpec",
    "ModelSpec",
    "OptimizerSpec",
    "Recipe",
    "SGDSpec",
    "ScheduleSpec",
    "ShiftAdaMaxSpec",
    "WatchSpec",
    "check_recipe",
    "list_recipes",
    "load_recipe",
]
