"""The zoo's one registry: it feeds `create`, `list_models`, recipes and the command line."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from lobit.bits import Bits
from lobit.errors import ConfigError

Factory = Callable[..., nn.Module]
Kind = Literal["images", "words"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the zoo: its factory, the shape of its input without the batch axis, its classes, a line about it, and what its input is.

    Models of ``"words"`` take int64 word numbers, time first, and give logits at each step with their last state.
    """

    name: str
    factory: Factory
    input_shape: tuple[int, ...]
    num_classes: int
    description: str
    kind: Kind = "images"


_MODELS: dict[str, ModelInfo] = {}


def register(
    name: str, *, input_shape: tuple[int, ...], num_classes: int, description: str, kind: Kind = "images"
) -> Callable[[Factory], Factory]:
    """Enter a factory ``f(bits: Bits, *, ..) -> nn.Module``; its keyword arguments are the model's settings."""

    def enter(factory: Factory) -> Factory:
        _MODELS[name] = ModelInfo(name, factory, input_shape, num_classes, description, kind)
        return factory

    return enter


def list_models(pattern: str = "*", kind: Kind = "images") -> list[str]:
    """Names of the models of images, or of words, that fit a pattern, sorted."""
    return sorted(name for name in fnmatch.filter(_MODELS, pattern) if _MODELS[name].kind == kind)


def model_info(name: str) -> ModelInfo:
    """What the registry knows of a model.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), _MODELS, n=1)
        raise ConfigError(
            f"unknown model {name!r}; {f'did you mean {near[0]!r}?' if near else 'choose one of ' + ', '.join(sorted(_MODELS))}"
        )
    return _MODELS[name]


def create(name: str, bits: str | Bits | None = None, **kwargs: Any) -> nn.Module:
    """Build a model of the zoo.

    Parameters
    ----------
    name : str
        See `list_models`.
    bits : str or Bits, optional
        ``"W1A2"``, or ``"W1A2G6"`` with the gradients of sums in 6 bits; float when left out.
    **kwargs
        Settings of the model.

    Raises
    ------
    ConfigError
        For an unknown name, bits that are none, or a setting the model does not have.

    Examples
    --------
    >>> create("digits-convnet", bits="W1A1").training
    True
    """
    info, widths = model_info(name), Bits() if bits is None else Bits.parse(bits)
    settings = [
        parameter.name for parameter in inspect.signature(info.factory).parameters.values() if parameter.kind is parameter.KEYWORD_ONLY
    ]
    if unknown := sorted(set(kwargs) - set(settings)):
        raise ConfigError(f"model {name!r} has no setting {unknown[0]!r}; it has {', '.join(settings) or 'none'}")
    return info.factory(widths, **kwargs)
