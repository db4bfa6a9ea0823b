"""Policies of a whole model: which layer has which setting, by pattern, by place and by what is skipped."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lobit.bits import Bits
from lobit.convert.settings import FIELDS, Setting, setting
from lobit.convert.table import becomes
from lobit.errors import ConfigError

Pattern = str | type[nn.Module]
Policy = str | os.PathLike[str] | Bits | Mapping[Any, Any] | None
EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Rules:
    """Checked rules, not yet tied to a model: settings by pattern, those of the first and last layer, what stays in float, and the file they are from."""

    patterns: tuple[tuple[Pattern, Setting | None], ...]
    first: Setting | None
    last: Setting | None
    skip: tuple[Pattern, ...]
    source: str = ""

    def choose(self, modules: Mapping[str, nn.Module], products: Sequence[str]) -> dict[str, Setting | None]:
        """The setting of each product, by path; None where it stays in float.

        Raises
        ------
        ConfigError
            For a pattern that fits no layer, or that one before it leaves none.
        """
        for pattern, found_setting in self.patterns:
            self._check(pattern, products, modules, "quantizable layer")
            if found_setting is not None:
                self._check_class(pattern, products, modules)
        self._check_order(products, modules)
        for pattern in self.skip:
            self._check(pattern, [path for path in modules if path], modules, "module")
        rule = {path: next(((p, found) for p, found in self.patterns if _applies(path, modules[path], p)), None) for path in products}
        chosen = {path: None if found is None else found[1] for path, found in rule.items()}
        named = {
            path for path, found in rule.items() if found and found[0] == path
        }  # a layer named in full is not overruled by first and last
        counted = [path for path in products if not _by_name_only(modules[path])]
        for special, place in ((self.first, counted[:1]), (self.last, counted[-1:])):
            for path in place:
                if special is not None and path not in named and chosen[path] is not None:
                    chosen[path] = special
        return {path: None if self.skips(path, modules) else found for path, found in chosen.items()}

    def skips(self, path: str, modules: Mapping[str, nn.Module]) -> bool:
        """Whether a module, or one that it stands in, is to be left as it is."""
        if not self.skip:
            return False
        parts = path.split(".") if path else []
        around = [".".join(parts[:depth]) for depth in range(len(parts) + 1)]
        return any(fits(place, modules[place], pattern) for place in around if place in modules for pattern in self.skip)

    def _check_order(self, paths: Sequence[str], modules: Mapping[str, nn.Module]) -> None:
        """A pattern whose layers a wider one before it takes is a slip; one that narrower ones leave nothing is a fallback."""
        taken = [(pattern, {path for path in paths if _applies(path, modules[path], pattern)}) for pattern, _ in self.patterns]
        for index, (pattern, own) in enumerate(taken):
            for before, others in taken[:index]:
                if own and own <= others and _is_wider(before, pattern, own < others or pattern in own):
                    raise ConfigError(
                        f"{self.source}pattern {_shown(pattern)} never applies: {_shown(before)} stands before it and takes all its layers; the first "
                        f"pattern that fits a layer counts, so put {_shown(pattern)} first"
                    )

    def _check(self, pattern: Pattern, paths: Sequence[str], modules: Mapping[str, nn.Module], what: str) -> None:
        """A pattern of names that fits nothing is a slip; a class may be absent, so that one policy serves several models."""
        if pattern == EVERYTHING or _named_class(pattern) or not paths or any(fits(path, modules[path], pattern) for path in paths):
            return
        near = difflib.get_close_matches(str(pattern), paths, n=1)
        listed = f"{', '.join(paths[:8])}{', ..' if len(paths) > 8 else ''}"
        raise ConfigError(
            f"{self.source}pattern {pattern!r} fits no {what}; {f'did you mean {near[0]!r}?' if near else f'there are {listed}'}"
        )

    def _check_class(self, pattern: Pattern, products: Sequence[str], modules: Mapping[str, nn.Module]) -> None:
        """A class that the model has, but in nothing that can be quantized, is a slip."""
        if pattern == EVERYTHING or _named_class(pattern) is None or any(fits(path, modules[path], pattern) for path in products):
            return
        if here := [path for path, module in modules.items() if path and fits(path, module, pattern)]:
            raise ConfigError(
                f"{self.source}pattern {_shown(pattern)} fits {here[0]!r}, which has no weights to quantize; quantizable layers are {', '.join(products[:8])}"
            )


def rules(bits: Policy, first: Policy, last: Policy, skip: Sequence[Pattern] | Pattern) -> Rules:
    """Check a policy without a model.

    Raises
    ------
    ConfigError
        Naming what is wrong and what is allowed.
    """
    patterns: Mapping[Any, Any]
    if isinstance(bits, Mapping) and not bits:
        raise ConfigError("bits is an empty mapping; give a policy such as 'W2A4', or name patterns with policies")
    if isinstance(bits, Mapping) and "bits" not in bits:
        patterns = bits
        if slips := [key for key in bits if key in FIELDS]:
            raise ConfigError(
                f"bits: {slips[0]!r} without 'bits'; a policy with its quantizers named is {{'bits': 'W2A4', {slips[0]!r}: ..}}"
            )
        found = tuple((_pattern(key, "bits"), setting(policy, f"pattern {key!r}")) for key, policy in patterns.items())
    else:
        found = ((EVERYTHING, setting(bits, "bits")),)
    return Rules(found, setting(first, "first"), setting(last, "last"), tuple(_pattern(pattern, "skip") for pattern in patterns_of(skip)))


def patterns_of(skip: Sequence[Pattern] | Pattern) -> tuple[Pattern, ...]:
    """What is skipped, of one pattern or several."""
    if isinstance(skip, (str, type)):
        return (skip,)
    if not isinstance(skip, Iterable):
        raise ConfigError(f"skip must be a pattern of names, a class of torch.nn, or a list of them, not {skip!r}")
    return tuple(skip)


def fits(path: str, module: nn.Module, pattern: Pattern) -> bool:
    """Whether a pattern means a module: a class by the module's own or a subclass, else the path in full or as a shell pattern."""
    cls = _named_class(pattern)
    if cls is not None:
        return isinstance(module, cls)
    return path == pattern or fnmatch.fnmatchcase(path, str(pattern))


def _applies(path: str, module: nn.Module, pattern: Pattern) -> bool:
    """Whether a pattern means a product; ``"*"`` means none that only its name quantizes."""
    return fits(path, module, pattern) and not (pattern == EVERYTHING and _by_name_only(module))


def _is_wider(before: Pattern, pattern: Pattern, takes_more: bool) -> bool:
    """Whether a pattern that takes all layers of a later one is the wider of the two; of classes, whether it is so in every model."""
    if before == EVERYTHING:
        return True
    cls, other = _named_class(pattern), _named_class(before)
    return takes_more if cls is None else other is not None and issubclass(cls, other)


def _shown(pattern: Pattern) -> str:
    return repr(pattern) if isinstance(pattern, str) else pattern.__name__


def _named_class(pattern: Pattern) -> type[nn.Module] | None:
    """The class that a pattern is, or names as ``"nn.Conv2d"``."""
    if isinstance(pattern, type):
        return pattern
    head, _, name = pattern.partition(".")
    cls = getattr(nn, name, None) if head == "nn" else None
    return cls if isinstance(cls, type) and issubclass(cls, nn.Module) else None


def _pattern(given: Any, what: str) -> Pattern:
    if isinstance(given, type) and issubclass(given, nn.Module):
        return given
    if not isinstance(given, str) or not given:
        raise ConfigError(
            f"{what}: {given!r} is no pattern; give a path such as 'layer1.0.conv1', a pattern such as 'layer1.*', or a class such as nn.Conv2d"
        )
    return given


def _by_name_only(module: nn.Module) -> bool:
    entry = becomes(module)
    return entry is not None and entry.named
