"""Parameter groups by predicate: every parameter in exactly one."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from lobit.errors import ConfigError
from lobit.nn import quantized_weights
from lobit.optim.latent import StepScale, check_step_scale, step_factor
from lobit.quantizers import LearnsBits, Quantizer, WeightQuantizer

Predicate = Callable[[str, nn.Parameter, nn.Module], bool]
"""Told a parameter's name, itself, and the module that holds it."""
LEARNED_STEP_RATE = 0.1  # Adam moves every parameter by about lr, and learned steps are a tenth the size of what they quantize
LEARNED_WIDTH_RATE = 5  # widths are logarithms, of step and clipping level: with Adam's usual rate of 1e-3, 100 steps a bit


def weight_quantizer(parameter: nn.Parameter, module: nn.Module) -> WeightQuantizer | None:
    """The quantizer of a layer's weights, None where the parameter is something else."""
    return next((quantizer for weight, quantizer in quantized_weights(module) if weight is parameter), None)


def is_latent(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a parameter is the latent weights of a layer, those that `clip_latent_weights` keeps in a range."""
    quantizer = weight_quantizer(parameter, module)
    return quantizer is not None and quantizer.latent_range is not None


def is_one_bit(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a parameter is a layer's weights, of which only the sign is used: those that `Bop` is for."""
    quantizer = weight_quantizer(parameter, module)
    return quantizer is not None and is_sign(quantizer)


def is_sign(quantizer: WeightQuantizer) -> bool:
    """Whether all that it takes of a weight is the sign."""
    return not quantizer.fractions and quantizer.code_type.bits == 1


def is_step(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a parameter is a quantizer's own, such as a learned step."""
    return isinstance(module, Quantizer)


def is_width(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a parameter makes a learned width, see `lobit.quantizers.LearnedBits`; it is one of those of `is_step`."""
    return isinstance(module, LearnsBits)


def groups_by(
    model: nn.Module, rules: Mapping[str | Predicate, Mapping[str, Any]], *, rest: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Parameter groups by rules, every parameter of the model in exactly one.

    Parameters
    ----------
    model : nn.Module
    rules : mapping
        From a pattern of names (``"*.bias"``, ``"features.?.weight"``), or a predicate ``f(name, parameter, module) -> bool`` such as `is_latent`, to the
        settings of its group: what the optimizer takes. The setting ``step_scale``, which needs ``lr``, gives each latent weight a group of its own, with ``lr``
        times its layer's `step_factor`.
    rest : mapping, optional
        Settings of the parameters that no rule takes; without it every parameter needs a rule.

    Returns
    -------
    list of dict
        In the order of the rules. A predicate that takes nothing makes no group.

    Raises
    ------
    ConfigError
        Naming the parameters that two rules take, those that none does, or a pattern that no name fits.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    >>> groups = groups_by(model, {"*.bias": {"weight_decay": 0.0}}, rest={"weight_decay": 1e-4})
    >>> [len(group["params"]) for group in groups]
    [2, 2]
    """
    found = list(parameters_of(model))
    takers = {name: [rule for rule in rules if _takes(rule, name, parameter, module)] for name, parameter, module in found}
    _refuse(rules, takers, has_rest=rest is not None)
    groups: list[dict[str, Any]] = []
    for rule, settings in rules.items():
        groups += _group([entry for entry in found if takers[entry[0]] == [rule]], settings)
    return groups + _group([entry for entry in found if not takers[entry[0]]], rest or {})


def parameter_groups(
    model: nn.Module, lr: float, *, step_scale: StepScale | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: each kind of parameter with its rate.

    Latent weights get their layer's step and no decay, learned quantizer steps a tenth of the rate and no decay, learned widths five times the rate and no decay, the
    rest the plain rate. `groups_by` makes others.

    Raises
    ------
    ConfigError
        For an unknown step scale.
    """
    latent = {"lr": lr, "weight_decay": 0.0, "step_scale": step_scale}
    step = {"lr": lr * LEARNED_STEP_RATE, "weight_decay": 0.0}
    width = {"lr": lr * LEARNED_WIDTH_RATE, "weight_decay": 0.0}
    return groups_by(model, {is_latent: latent, _is_plain_step: step, is_width: width}, rest={"lr": lr, "weight_decay": weight_decay})


def _is_plain_step(name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    return is_step(name, parameter, module) and not is_width(name, parameter, module)


def parameters_of(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Names, parameters and the modules that hold them; a shared parameter once, by its first name."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}.{own}".lstrip("."), parameter, module


def _takes(rule: str | Predicate, name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    return fnmatch.fnmatchcase(name, rule) if isinstance(rule, str) else bool(rule(name, parameter, module))


def _refuse(rules: Mapping[str | Predicate, Mapping[str, Any]], takers: Mapping[str, list[str | Predicate]], *, has_rest: bool) -> None:
    for rule in rules:
        if isinstance(rule, str) and not any(rule in taken for taken in takers.values()):
            near = difflib.get_close_matches(rule, takers, n=1, cutoff=0.3)
            raise ConfigError(f"no parameter's name fits {rule!r}{f'; there is {near[0]!r}' if near else ''}; remove or correct the rule")
    if overlaps := {name: taken for name, taken in takers.items() if len(taken) > 1}:
        name, taken = next(iter(overlaps.items()))
        raise ConfigError(
            f"{_listed(overlaps)} would be in several groups: {name!r} is taken by {' and '.join(map(_title, taken))}; make the rules exclude each other"
        )
    if not has_rest and (left := [name for name, taken in takers.items() if not taken]):
        raise ConfigError(f"no rule takes {_listed(left)}; add one, or give rest= the settings of all others")


def _listed(names: Mapping[str, Any] | list[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _title(rule: str | Predicate) -> str:
    return repr(rule) if isinstance(rule, str) else getattr(rule, "__name__", repr(rule))


def _group(found: list[tuple[str, nn.Parameter, nn.Module]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One group; with a step scale first one for each latent weight, whose ``step_factor`` tells optimizers what is in its rate."""
    plain = {name: value for name, value in settings.items() if name != "step_scale"}
    step_scale = settings.get("step_scale")
    check_step_scale(step_scale)
    if step_scale is not None and "lr" not in plain:
        raise ConfigError("step_scale multiplies a group's rate: give the group an 'lr' too")
    groups: list[dict[str, Any]] = []
    others = []
    for name, parameter, module in found:
        if "step_scale" in settings and is_latent(name, parameter, module):
            layer = next(part for part in quantized_weights(module) if part.weight is parameter)
            factor = step_factor(layer, step_scale) if step_scale else None
            scaled = {"lr": plain["lr"] * factor, "step_factor": factor} if factor else {}
            groups.append({"params": [parameter], **plain, **scaled})
        else:
            others.append(parameter)
    return [*groups, *([{"params": others, **plain}] if others else [])]
