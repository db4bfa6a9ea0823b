"""`quantize_`: any float model becomes a low-bit one, in place, its parameters and their names unchanged."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lobit.convert.file import is_file, read_policy
from lobit.convert.report import QuantizeReport, Row
from lobit.convert.rules import Pattern, Policy, Rules, patterns_of, rules
from lobit.convert.settings import Setting
from lobit.convert.table import BYPASS, Becomes, becomes, bypasses, is_ours, why_not
from lobit.errors import ConfigError


def quantize_(
    model: nn.Module, bits: Policy, *, first: Policy = "W8A8", last: Policy = "W8A8", skip: Sequence[Pattern] | Pattern = ()
) -> QuantizeReport:
    """Quantize a float model in place.

    What each class of torch.nn becomes stands in one table, `lobit.convert.TABLE`: layers with weights get quantizers; batch norms and average pools
    are replaced by lobit's, whose eval is exact. Functional ReLUs, additions and the like stay as they are. Parameters keep their names and
    objects: an optimizer made before goes on working, and a float checkpoint loads strictly.

    Parameters
    ----------
    model : nn.Module
        Anything but a bare layer, which cannot be replaced in place.
    bits : str, Bits, mapping or path
        One of

        - ``"W2A4"`` for all layers, ``"W2A4G6"`` with the gradients of their sums;
        - one policy with its quantizers named: ``{"bits": "W2A2G6", "weights": "dorefa", "activations": "dorefa", "gradients": "dorefa"}``;
        - a mapping of patterns to such policies, None to leave a layer alone. A pattern is the path of a layer, a shell pattern (``"features.*"``), or
          a class (``nn.Conv2d``, or ``"nn.Conv2d"``). The first that fits counts, so the narrow ones come before the wide ones; one
          that a wider one before it leaves no layer is refused;
        - the path of a YAML file (``"policy.yaml"``), see the notes.
    first, last : str, Bits, mapping or None
        Policies of the first and last quantizable layer in the order of modules; None treats them like all. A layer that ``bits`` names in full, or leaves
        in float, is not overruled.
    skip : sequence of str or class
        Patterns of modules that stay as they are, with all within them. Ahead of all other rules.

    Returns
    -------
    QuantizeReport
        What was replaced and what was not, with the reason. A warning is issued when nothing was quantized.

    Raises
    ------
    ConfigError
        For a policy that is wrong or fits no layer, or a model that is quantized already; the model is then unchanged.

    Notes
    -----
    By default one-bit weights are the sign times the mean magnitude of each output channel, wider ones LSQ with one step for each output channel;
    activations are LSQ with one step, see `lobit.quantizers.LSQ`; gradients are DoReFa's.

    A policy file has the fields ``bits``, ``weights``, ``activations``, ``gradients`` (all layers), ``layers`` (a mapping of patterns, ahead of those),
    ``first``, ``last`` and ``skip``. What it says counts, the arguments fill in the rest; both lists of what is skipped count::

        bits: W2A4
        layers:
          "blocks.0.*": W4A4
          "*.shortcut": {bits: W4A4, weights: dorefa}
        first: W8A8
        last: null
        skip: ["*.attention", nn.LSTM]

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(quantize_(net, "W1A2"))
    layer  class   bits  note
    0      Linear  W8A8  lsq, lsq
    2      Linear  W1A2  magnitude_sign, lsq
    4      Linear  W8A8  lsq, lsq
    """
    found = _rules(bits, first, last, skip)
    modules = _checked(model)
    bypassed = {id(part) for module in modules.values() if bypasses(module) for part in module.modules()}
    entries = {path: entry for path, module in modules.items() if (entry := becomes(module)) is not None}
    products = [path for path, entry in entries.items() if entry.roles and not _obstacle(modules[path], entry, bypassed)]
    if "" in entries and entries[""].cls is not type(model):
        raise ConfigError(f"a bare {type(model).__name__} cannot be replaced in place; wrap it: torch.nn.Sequential(layer)")
    settings = found.choose(modules, products)
    made: dict[str, nn.Module] = {}
    rows: list[Row] = []
    for path, module in modules.items():
        row, new = _replace(path, module, entries.get(path), settings.get(path), _reason(path, modules, entries, found, bypassed))
        rows += [row] if row else []
        if new is not None:
            made[path] = new
    _install(model, modules, made)
    report = QuantizeReport(tuple(rows))
    if not report.quantized:
        warnings.warn("quantize_ quantized no layer: the model has no quantizable layer that the policy covers", stacklevel=2)
    return report


def _rules(bits: Policy, first: Policy, last: Policy, skip: Sequence[Pattern] | Pattern) -> Rules:
    """The rules of the arguments, or of a file that they name."""
    if not is_file(bits):
        return rules(bits, first, last, skip)
    assert isinstance(bits, (str, os.PathLike))
    given: dict[str, Any] = {"first": first, "last": last} | read_policy(bits)
    source = f"policy file {os.fspath(bits)!r}: "
    try:
        found = rules(given["bits"], given["first"], given["last"], (*given.get("skip", ()), *patterns_of(skip)))
    except ConfigError as error:
        raise ConfigError(f"{source}{error}") from None
    return replace(found, source=source)


def _checked(model: nn.Module) -> dict[str, nn.Module]:
    """The modules by path, but for the parts of whole layers, once the model is known to be one that can be quantized."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(f"model must be a torch.nn.Module that is not scripted, not {type(model).__name__}")
    modules = dict(model.named_modules())
    entries = {id(module): becomes(module) for module in modules.values()}
    whole = [module for module in modules.values() if (entry := entries[id(module)]) is not None and entry.whole]
    parts = {id(part) for module in whole for part in module.modules() if part is not module}
    modules = {path: module for path, module in modules.items() if id(module) not in parts}
    for path, module in modules.items():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            raise ConfigError(f"layer {path!r} has no weights yet; run one batch through the model first")
        entry = entries[id(module)]
        own = module.parameters(recurse=entry.whole) if entry is not None and entry.roles else ()
        half = {p.dtype for p in own} & {torch.float16, torch.bfloat16}
        if half:
            raise ConfigError(f"layer {path!r} has {half.pop()} weights; call model.float() first and train with torch.autocast")
        if is_ours(module) and getattr(module, "is_quantized", False):
            raise ConfigError(f"layer {path!r} is quantized already; quantize_ takes a float model, so build the model anew")
    return modules


def _obstacle(module: nn.Module, entry: Becomes, bypassed: Collection[int]) -> str:
    """Why a module of the table cannot be replaced; empty when it can."""
    if entry.roles and id(module) in bypassed:
        return f"{' and '.join(cls.__name__ for cls in BYPASS)} reads its weights past the layer in eval"
    return entry.obstacle(module)


def _reason(path: str, modules: Mapping[str, nn.Module], entries: Mapping[str, Becomes], found: Rules, bypassed: Collection[int]) -> str:
    """Why a module stays whatever its setting is; empty where it need not."""
    if found.skips(path, modules):
        return "skipped by the policy"
    return _obstacle(modules[path], entries[path], bypassed) if path in entries else ""


def _replace(
    path: str, module: nn.Module, entry: Becomes | None, setting: Setting | None, reason: str
) -> tuple[Row | None, nn.Module | None]:
    name = type(module).__name__
    if entry is None:
        owns = any(True for _ in module.parameters(recurse=False)) or isinstance(module, nn.modules.batchnorm._BatchNorm)
        return (Row(path, name, "", False, reason or why_not(module)) if owns and not is_ours(module) else None), None
    if not reason and entry.roles and (setting is None or setting.of(entry.roles).is_float):
        reason = "it is quantized only where a pattern names it" if setting is None and entry.named else "its policy is float"
    if reason:
        return Row(path, name, "", False, reason), None
    try:
        new = entry.make(module, entry.cls)
    except ConfigError as error:
        return Row(path, name, "", False, str(error)), None
    if setting is None:
        return Row(path, name, "", True, entry.note), new
    quantizers = [setting.build(role) for role in entry.roles]
    for quantizer in quantizers:
        if quantizer is not None:
            quantizer.owner = quantizer.owner or f"layer {path!r}"
            quantizer.train(module.training)
    try:
        new.set_quantizers(*quantizers)  # type: ignore[operator]  # every class of the table with roles has it
    except ConfigError as error:
        raise ConfigError(f"layer {path!r}: {error}") from None
    aliases = ["float" if quantizer is None else quantizer.alias for quantizer in quantizers]
    if aliases[2:] == ["float"]:
        aliases.pop()
    return Row(path, name, str(setting.of(entry.roles)), True, ", ".join(aliases)), new


def _install(model: nn.Module, modules: Mapping[str, nn.Module], made: Mapping[str, nn.Module]) -> None:
    """Put new modules wherever the old ones stand; a module that stands in several places stays one."""
    by_old = {id(modules[path]): new for path, new in made.items()}
    for parent in [*modules.values(), *made.values()]:
        for name, child in list(parent._modules.items()):
            if id(child) in by_old:
                parent._modules[name] = by_old[id(child)]
    if "" in made:  # of the model's own class, with other settings
        vars(model).update(vars(made[""]))
