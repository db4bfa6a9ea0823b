"""Quantizers by name: one decorator enters a class, `get` finds or builds an instance."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, overload

from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, GradientQuantizer, Quantizer, Role, WeightQuantizer
from lobit.quantizers.groups import GroupedWeights

Q = TypeVar("Q", bound=Quantizer)
Identifier = None | str | Mapping[str, Any] | Callable[[], Quantizer] | Quantizer

_REGISTRY: dict[tuple[Role, str], type[Quantizer]] = {}


def register(alias: str) -> Callable[[type[Q]], type[Q]]:
    """Enter a quantizer class under a name; weights, activations and gradients have their own names.

    A class that is defined again, as a notebook cell that runs twice does, takes the place of the former.

    Raises
    ------
    ConfigError
        For a name that another class has.
    """

    def enter(cls: type[Q]) -> type[Q]:
        former = _REGISTRY.get((cls.role, alias))
        if former is not None and _full_name(former) != _full_name(cls):
            raise ConfigError(
                f"quantizer {alias!r} of {cls.role} is {_full_name(former)} already; register {cls.__name__} under another name"
            )
        cls.alias = alias
        _REGISTRY[cls.role, alias] = cls
        return cls

    return enter


def _full_name(cls: type[Quantizer]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def names(role: Role) -> list[str]:
    """The names that `get` knows for ``"weights"``, ``"activations"`` or ``"gradients"``."""
    return sorted(alias for kind, alias in _REGISTRY if kind == role)


@overload
def get(identifier: Identifier, role: Literal["weights"], bits: int | None = None) -> WeightQuantizer | None: ...
@overload
def get(identifier: Identifier, role: Literal["activations"], bits: int | None = None) -> ActivationQuantizer | None: ...
@overload
def get(identifier: Identifier, role: Literal["gradients"], bits: int | None = None) -> GradientQuantizer | None: ...
@overload
def get(identifier: Identifier, role: Role, bits: int | None = None) -> Quantizer | None: ...
def get(identifier: Identifier, role: Role, bits: int | None = None) -> Any:
    """Find or build a quantizer.

    Parameters
    ----------
    identifier : None, str, dict, callable or Quantizer
        None gives None. A name builds the registered class. A dict holds ``name`` and arguments of the class, such as
        ``{"name": "lsq", "bits": 4, "nonnegative": True}``; of weights it may hold ``group``, see `GroupedWeights`. A callable is called without arguments. A quantizer is returned as it is.
    role : {"weights", "activations", "gradients"}
        What is quantized.
    bits : int, optional
        The width for a name or a dict that has none. A class whose constructor takes no ``bits`` has one width, which must be this one.

    Raises
    ------
    ConfigError
        For an unknown name, arguments the class does not take, or a quantizer of the other role.

    Examples
    --------
    >>> get({"name": "dorefa", "bits": 2}, "weights").code_type.levels
    (-3, -1, 1, 3)
    """
    if identifier is None:
        return None
    if isinstance(identifier, Quantizer):
        quantizer: Any = identifier
    elif isinstance(identifier, str):
        quantizer = _build(identifier, role, {}, bits)
    elif isinstance(identifier, Mapping):
        settings = dict(identifier)
        if "name" not in settings:
            raise ConfigError(f"a quantizer given as a dict needs 'name', one of {', '.join(names(role))}; got {settings!r}")
        group = settings.pop("group", None) if role == "weights" else None
        quantizer = _build(settings.pop("name"), role, settings, bits)
        quantizer = quantizer if group is None else GroupedWeights(quantizer, group)
    elif callable(identifier):
        quantizer = identifier()
    else:
        quantizer = identifier
    if not isinstance(quantizer, Quantizer):
        raise ConfigError(
            f"{quantizer!r} is no quantizer; give None, a name of {', '.join(names(role))}, a dict, a callable or a Quantizer"
        )
    if quantizer.role != role:
        raise ConfigError(f"{type(quantizer).__name__} quantizes {quantizer.role}, not {role}; choose one of {', '.join(names(role))}")
    return quantizer


def _build(name: Any, role: Role, settings: dict[str, Any], bits: int | None) -> Quantizer:
    cls = _REGISTRY.get((role, name))
    if cls is None:
        near = difflib.get_close_matches(str(name), names(role), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"no quantizer of {role} is called {name!r}{hint}; choose one of {', '.join(names(role))}")
    fixed = "bits" not in inspect.signature(cls).parameters
    if bits is not None and not fixed:
        settings.setdefault("bits", bits)
    try:
        quantizer = cls(**settings)
    except TypeError as error:
        raise ConfigError(f"quantizer {name!r} of {role} does not take {settings!r}: {error}") from None
    if fixed and bits is not None and quantizer.code_type.bits != bits:
        raise ConfigError(f"quantizer {name!r} of {role} has {quantizer.code_type.bits} bits, not {bits}; ask for its own width")
    return quantizer
