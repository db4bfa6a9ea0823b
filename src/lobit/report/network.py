"""The graph of whatever a user names: a file, a run, a checkpoint, a recipe or a model of the zoo. Files need no torch."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobit.bits import Bits
from lobit.errors import ConfigError, ExportError, LobitError
from lobit.extras import require
from lobit.format import Graph, check_graph, read_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lobit.recipes import Recipe

RECIPE_SUFFIXES = (".yaml", ".yml")
CHECKPOINT_SUFFIX = ".ckpt"


@dataclass(frozen=True, slots=True)
class Network:
    """A graph, what it is called, the bytes of the file where it came from one, and the bytes of scales that no graph has a place for, by layer (see `lobit.report.groups`)."""

    title: str
    graph: Graph
    file_bytes: int | None = None
    group_scales: Mapping[str, int] = field(default_factory=dict)


def find_network(what: Any, example: Tensor | Sequence[Tensor] | None = None, bits: str | Bits | None = None) -> Network:
    """The graph of a network, however it is given.

    Parameters
    ----------
    what : path-like, str, Graph, Session or nn.Module
        A ``.lobit`` file, the folder of a run, a checkpoint, the path or name of a recipe, the name of a model of the zoo; what exists as a path is taken
        as one. A model is captured as export does it; quantizers of a copy that have seen no data start from the example, or from noise.
    example : Tensor or tuple of Tensor, optional
        Input of an nn.Module, with a batch axis; needed there, refused elsewhere.
    bits : str or Bits, optional
        For a model of the zoo, or instead of a recipe's; a file, a run and a checkpoint have their own.

    Raises
    ------
    ConfigError, FormatError, ExportError
        When there is no such thing, or it cannot be read or captured.
    MissingExtraError
        Where torch is missing, for anything but a file or a graph.
    """
    if isinstance(what, (str, os.PathLike)):
        if example is not None:
            raise ConfigError(f"an example belongs to an nn.Module; {os.fspath(what)!r} says itself what its input is")
        return _named(os.fspath(what), bits)
    if bits is not None:
        raise ConfigError(f"bits belong to a model of the zoo or a recipe, not to a {type(what).__name__}, which has its own")
    graph = getattr(what, "graph", what)  # a Session holds one
    if isinstance(graph, Graph):
        return Network("graph", graph if graph.types else check_graph(graph))
    require("a summary of a model", "torch")
    from torch import nn

    if not isinstance(what, nn.Module):
        raise ConfigError(f"a network is a path, a name, a Graph, a Session or an nn.Module, not {type(what).__name__}")
    if example is None:
        raise ConfigError("a model needs an example of its input: a float32 tensor with a batch axis, such as torch.rand(2, 3, 32, 32)")
    return _captured(type(what).__name__, what, example)


def _named(what: str, bits: str | Bits | None) -> Network:
    path = Path(what)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # too long, or not a path at all
        is_folder = is_file = False
    if path.suffix in RECIPE_SUFFIXES:
        return _recipe(what, bits)
    if what and (is_folder or path.suffix == CHECKPOINT_SUFFIX):
        _refuse_bits(what, bits)
        return _run(what, "run" if is_folder else "checkpoint")
    if is_file or path.suffix == ".lobit" or os.sep in what or not what:
        _refuse_bits(what, bits)
        graph = read_file(what)
        return Network(f"file {what}", graph, path.stat().st_size)
    return _by_name(what, bits)


def _refuse_bits(what: str, bits: str | Bits | None) -> None:
    if bits is not None:
        raise ConfigError(f"bits {str(bits)!r} belong to a model of the zoo or a recipe; {what!r} has its own: leave them out")


def _by_name(name: str, bits: str | Bits | None) -> Network:
    require(f"{name!r} is no file here, and a model or recipe", "torch", "yaml", "pydantic")
    from lobit.models import create, list_models
    from lobit.recipes import list_recipes

    models, recipes = list_models(), list_recipes()
    if name in models:
        widths = Bits() if bits is None else Bits.parse(bits)
        title = f"model {name}, {_text(widths)}, untrained"
        return _captured(title, create(name, bits=widths), _noise(name))
    if name in recipes:
        return _recipe(name, bits)
    near = difflib.get_close_matches(name, [*models, *recipes], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`lobit models` and `lobit recipes` list the names"
    raise ConfigError(f"{name!r} is no file, run, model or recipe; {hint}")


def _run(what: str, kind: str) -> Network:
    require(f"a {kind}", "torch", "lightning", "yaml", "pydantic")
    from lobit.training import load_model

    model, recipe = load_model(what)
    return _captured(f"{kind} {what} ({_of(recipe)})", model, _noise(recipe.model.name, recipe))


def _recipe(what: str, bits: str | Bits | None) -> Network:
    require(f"recipe {what!r}", "torch", "lightning", "yaml", "pydantic")
    from lobit.recipes import load_recipe
    from lobit.training import build_model

    recipe = load_recipe(what)
    if bits is not None:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"bits": str(Bits.parse(bits))})})
    return _captured(f"recipe {what} ({_of(recipe)}), untrained", build_model(recipe), _noise(recipe.model.name, recipe))


def _of(recipe: Recipe) -> str:
    return f"{recipe.model.name}, {_text(Bits.parse(recipe.model.bits or Bits()))}"


def _text(bits: Bits) -> str:
    return "float" if bits.is_float else str(bits)


def _noise(model: str, recipe: Recipe | None = None) -> Tensor:
    """Two samples of the shape that a model of the zoo takes, in the range of the recipe's data."""
    import torch

    from lobit.models import model_info

    low, high = (recipe.data.low, recipe.data.high) if recipe is not None else (0.0, 1.0)
    x = torch.rand(2, *model_info(model).input_shape, generator=torch.Generator().manual_seed(0))
    return low + (high - low) * x


def _captured(title: str, model: nn.Module, example: Tensor | Sequence[Tensor]) -> Network:
    """Capture a copy in eval mode, so that the model stays as it is."""
    from copy import deepcopy

    from lobit.capture.capture import capture
    from lobit.capture.trace import as_tuple
    from lobit.quantizers import calibrating
    from lobit.report.groups import without_groups_

    inputs = as_tuple(example)
    model = deepcopy(model).eval()
    try:
        with calibrating(model):
            model(*inputs)
    except LobitError:
        raise
    except Exception as error:
        raise ExportError(f"the model does not run on an input of shape {_shapes(inputs)}: {str(error).partition(chr(10))[0]}") from error
    group_scales = without_groups_(model)
    return Network(title, capture(model, inputs).graph, group_scales=group_scales)


def _shapes(inputs: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in inputs)
