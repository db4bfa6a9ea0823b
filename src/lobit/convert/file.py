"""A policy in a YAML file: what `quantize_` takes as ``bits``, and beside it ``first``, ``last`` and ``skip``."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lobit.convert.rules import EVERYTHING
from lobit.convert.settings import FIELDS, setting
from lobit.errors import ConfigError
from lobit.strict_yaml import MAX_BYTES, parse_yaml

KNOWN = (*FIELDS, "layers", "first", "last", "skip")
_POLICY = "a policy such as W2A4, null, or a mapping of bits, weights, activations and gradients"


def is_file(policy: Any) -> bool:
    """Whether a policy is the path of a file."""
    return isinstance(policy, os.PathLike) or (isinstance(policy, str) and policy.lower().endswith((".yaml", ".yml")))


def read_policy(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `quantize_` that a policy file holds.

    Fields, all of them optional, but one of ``bits`` and ``layers``:

    - ``bits``, ``weights``, ``activations``, ``gradients``: the policy of all layers that ``layers`` does not name;
    - ``layers``: patterns with policies, the first that fits counts; null leaves a layer in float;
    - ``first``, ``last``: policies of the first and the last layer; null treats them like all;
    - ``skip``: a list of patterns of modules that stay as they are.

    Returns
    -------
    dict
        ``bits``, and those of ``first``, ``last`` and ``skip`` that the file has.

    Raises
    ------
    ConfigError
        Naming the file, the field, its value and what is allowed.
    """
    name = os.fspath(path)
    fields = _parse(name)
    for field in fields:
        if field not in KNOWN:
            near = difflib.get_close_matches(str(field), KNOWN, n=1)
            raise ConfigError(
                _where(
                    name,
                    field,
                    fields[field],
                    f"unknown field{f', did you mean {near[0]!r}?' if near else ''}; a policy file has {', '.join(KNOWN)}",
                )
            )
    for field, value in fields.items():
        _check(name, field, value)
    layers, common = fields.get("layers") or {}, {field: fields[field] for field in FIELDS if field in fields}
    if not layers and "bits" not in common:
        raise ConfigError(
            f"policy file {name!r} has neither bits nor layers; write 'bits: W2A4' for all layers, or patterns with policies under layers"
        )
    if common and "bits" not in common:
        raise ConfigError(f"policy file {name!r}: {next(iter(common))} needs bits beside it, such as 'bits: W2A4'")
    if common and EVERYTHING in layers:
        raise ConfigError(f"policy file {name!r}: layers has the pattern '*', so that bits is never used; remove one of them")
    if common:
        setting(common, f"policy file {name!r}: bits")
    found = {"bits": {**layers, **({EVERYTHING: common} if common else {})}}
    return found | {field: fields[field] for field in ("first", "last", "skip") if field in fields}


def _check(name: str, field: str, value: Any) -> None:
    """The shape of a field; what it says is checked with the same words as in Python."""
    if field == "layers":
        if not isinstance(value, Mapping) or not value:
            raise ConfigError(_where(name, field, value, "must be a mapping of name patterns to policies"))
        for pattern, policy in value.items():
            if not isinstance(pattern, str) or not pattern:
                raise ConfigError(_where(name, field, pattern, "a pattern must be text; put it in quotes"))
            if not (policy is None or isinstance(policy, (str, Mapping))):
                raise ConfigError(_where(name, f"layers: {pattern!r}", policy, f"must be {_POLICY}"))
    elif field == "skip":
        if not isinstance(value, list) or not all(isinstance(pattern, str) and pattern for pattern in value):
            raise ConfigError(_where(name, field, value, "must be a list of name patterns, or of classes such as nn.LSTM"))
    elif field in ("first", "last"):
        if not (value is None or isinstance(value, (str, Mapping))):
            raise ConfigError(_where(name, field, value, f"must be {_POLICY}"))
    elif field == "bits":
        if not isinstance(value, str):
            raise ConfigError(_where(name, field, value, "must be text such as W2A4 or W2A4G6; patterns stand under layers"))
    elif not isinstance(value, (str, Mapping)) or (isinstance(value, Mapping) and "name" not in value):
        raise ConfigError(_where(name, field, value, "must be a quantizer's name, or a mapping with its name and arguments"))


def _where(name: str, field: Any, value: Any, why: str) -> str:
    return f"policy file {name!r}: {field}: {why} (got {reprlib.repr(value)})"


def _parse(name: str) -> dict[Any, Any]:
    try:
        if Path(name).stat().st_size > MAX_BYTES:
            raise ConfigError(f"policy file {name!r} has more than {MAX_BYTES} bytes; a policy is a short YAML file")
        raw = Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read policy file {name!r}: {error.strerror}; a policy is bits such as 'W2A4', a mapping, or the path of a YAML file"
        ) from error
    fields = parse_yaml(f"policy file {name!r}", raw)
    if not isinstance(fields, dict):
        raise ConfigError(f"policy file {name!r} must be a mapping of {', '.join(KNOWN)}; it holds {reprlib.repr(fields)}")
    return fields
