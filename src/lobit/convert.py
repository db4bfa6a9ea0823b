"""`quantize_`: any float model becomes a low-bit one, in place, its parameters and their names unchanged."""

from __future__ import annotations

from lobit.extras import require

require("lobit.quantize_", "torch")

import difflib
import fnmatch
import textwrap
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lobit import nn as lnn
from lobit.bits import FLOAT_BITS, Bits
from lobit.errors import ConfigError
from lobit.nn import QuantizedLayer
from lobit.quantizers import Quantizer, get
from lobit.quantizers.base import Role

Policy = str | Bits | Mapping[str, Any] | None

PRODUCTS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: lnn.Linear, nn.Conv2d: lnn.Conv2d}
"""Layers that get quantizers."""
EXACT: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: lnn.BatchNorm1d,
    nn.BatchNorm2d: lnn.BatchNorm2d,
    nn.AvgPool2d: lnn.AvgPool2d,
    nn.AdaptiveAvgPool2d: lnn.AdaptiveAvgPool2d,
}
"""Layers whose eval must give the same floats everywhere."""
BYPASS = (nn.TransformerEncoderLayer,)
"""Modules that in eval read the weights of their Linear layers themselves, past any quantizer."""
_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one module: its path, its class, its bits (``""`` where it has none), its quantizers, or why it stayed."""

    path: str
    kind: str
    bits: str
    replaced: bool
    note: str


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What `quantize_` did, module by module; prints as a table of at most 100 columns."""

    rows: tuple[Row, ...]

    @property
    def replaced(self) -> tuple[str, ...]:
        """Paths of the modules that were replaced."""
        return tuple(row.path for row in self.rows if row.replaced)

    def __str__(self) -> str:
        head = ("layer", "class", "bits", "note")
        cells = [(row.path or "(model)", row.kind, row.bits or "-", row.note if row.replaced else f"left: {row.note}") for row in self.rows]
        widths = [min(max(len(line[column]) for line in [head, *cells]), limit) for column, limit in enumerate((40, 24, 10))]
        room = _COLUMNS - sum(widths) - 2 * len(widths)
        lines = []
        for *texts, note in [head, *cells]:
            start = "  ".join(_fit(text, width).ljust(width) for text, width in zip(texts, widths, strict=True))
            for part in textwrap.wrap(note, room):
                lines.append(f"{start}  {part}")
                start = " " * len(start)
        return "\n".join(lines)


def _fit(text: str, width: int) -> str:
    """``text``, its middle left out where it is longer than ``width``."""
    return text if len(text) <= width else f"{text[: width // 2 - 2]}..{text[len(text) - (width - width // 2) :]}"


def quantize_(model: nn.Module, bits: Policy, *, first: Policy = "W8A8", last: Policy = "W8A8") -> QuantizeReport:
    """Quantize a float model in place.

    Linear and Conv2d layers get quantizers for their weights and their own input; batch norms and average pools are replaced by lobit's, whose eval is
    exact. Functional ReLUs, additions and the like stay as they are. Parameters keep their names and objects: an optimizer made before goes on
    working, and a float checkpoint loads strictly.

    Parameters
    ----------
    model : nn.Module
        Anything but a bare Linear or Conv2d, which cannot be replaced in place.
    bits : str, Bits or mapping
        ``"W2A4"`` for all layers; or a mapping of name patterns (``"features.*"``, the first that fits counts) to such policies, None to leave a layer
        alone; or one policy with its quantizers named: ``{"weights": "dorefa", "activations": "dorefa", "bits": "W2A2"}``.
    first, last : str, Bits, mapping or None
        Policies of the first and last Linear or Conv2d in the order of modules; None treats them like all.

    Returns
    -------
    QuantizeReport
        What was replaced and what was not, with the reason. A warning is issued when nothing was.

    Raises
    ------
    ConfigError
        For a policy that is wrong or fits no layer, or a model that is quantized already; the model is then unchanged.

    Notes
    -----
    By default one-bit weights are the sign times the mean magnitude of each output channel, wider ones LSQ with one step for each output channel;
    activations are LSQ with one step, see `lobit.quantizers.LSQ`.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(quantize_(net, "W1A2"))
    layer  class   bits  note
    0      Linear  W8A8  lsq, lsq
    2      Linear  W1A2  magnitude_sign, lsq
    4      Linear  W8A8  lsq, lsq
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(f"model must be a torch.nn.Module that is not scripted, not {type(model).__name__}")
    modules = dict(model.named_modules())
    for path, module in modules.items():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            raise ConfigError(f"layer {path!r} has no weights yet; run one batch through the model first")
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.dtype in (torch.float16, torch.bfloat16):
            raise ConfigError(f"layer {path!r} has {module.weight.dtype} weights; call model.float() first and train with torch.autocast")
        if isinstance(module, QuantizedLayer) and module.is_quantized:
            raise ConfigError(f"layer {path!r} is quantized already; quantize_ takes a float model, so build the model anew")
    bypassed = {id(part) for module in modules.values() if isinstance(module, BYPASS) for part in module.modules()}
    products = [
        path for path, module in modules.items() if type(module) in (*PRODUCTS, *PRODUCTS.values()) and not _obstacle(module, bypassed)
    ]
    if "" in products or type(model) in EXACT:
        raise ConfigError(f"a bare {type(model).__name__} cannot be replaced in place; wrap it: torch.nn.Sequential(layer)")
    policies = _policies(products, bits, first, last)
    made: dict[str, nn.Module] = {}
    rows: list[Row] = []
    for path, module in modules.items():
        row, new = _replace(path, module, policies.get(path), _obstacle(module, bypassed))
        rows += [row] if row else []
        if new is not None:
            made[path] = new
    _install(model, modules, made)
    if not any(row.replaced and row.bits for row in rows):
        warnings.warn("quantize_ quantized no layer: the model has no Linear or Conv2d that the policy covers", stacklevel=2)
    return QuantizeReport(tuple(rows))


def _policies(products: list[str], bits: Policy, first: Policy, last: Policy) -> dict[str, Mapping[str, Any] | None]:
    """The policy of each Linear and Conv2d as ``{"bits": Bits, "weights": .., "activations": ..}``, or None where it stays float."""
    if isinstance(bits, Mapping) and not bits:
        raise ConfigError("bits is an empty mapping; give a policy such as 'W2A4', or name patterns with policies")
    if isinstance(bits, Mapping) and "bits" not in bits:
        patterns = {pattern: _policy(policy, f"pattern {pattern!r}") for pattern, policy in bits.items()}
        for pattern in patterns:
            if products and not any(_fits(path, pattern) for path in products):
                near = difflib.get_close_matches(pattern, products, n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"layers are {', '.join(products[:8])}{', ..' if len(products) > 8 else ''}"
                )
                raise ConfigError(f"pattern {pattern!r} fits no Linear or Conv2d; {hint}")
        chosen = {path: next((p for pattern, p in patterns.items() if _fits(path, pattern)), None) for path in products}
        named = {path for path in products if path in patterns}  # a layer named in full is not overruled by first and last
    else:
        common = _policy(bits, "bits")
        chosen, named = dict.fromkeys(products, common), set()
    for special, path in ((first, products[:1]), (last, products[-1:])):
        if special is not None and path and path[0] not in named and chosen[path[0]] is not None:
            chosen[path[0]] = _policy(special, "first or last")
    return chosen


def _fits(path: str, pattern: str) -> bool:
    return path == pattern or fnmatch.fnmatchcase(path, pattern)


def _policy(policy: Policy, what: str) -> Mapping[str, Any] | None:
    if policy is None:
        return None
    settings: dict[str, Any] = dict(policy) if isinstance(policy, Mapping) else {"bits": policy}
    if unknown := set(settings) - {"bits", "weights", "activations"}:
        raise ConfigError(f"{what}: unknown setting {sorted(map(str, unknown))}; a policy has bits, weights and activations")
    widths = Bits.parse(settings.get("bits", ""))
    if widths.gradients != FLOAT_BITS:
        raise ConfigError(f"{what}: {widths} asks for {widths.gradients}-bit gradients, which this version does not have; leave G away")
    settings["bits"] = widths
    roles: tuple[tuple[Role, int], ...] = (("weights", widths.weights), ("activations", widths.activations))
    for role, width in roles:
        settings[role] = None if width == FLOAT_BITS else settings.get(role) or _default(role, width)
        if isinstance(settings[role], Quantizer):
            raise ConfigError(
                f"{what}: {role} is one quantizer, which only one layer may have; give its name, a dict or a callable that makes one"
            )
        built = get(settings[role], role, None if width == FLOAT_BITS else width)  # to be checked, before any change
        if getattr(built, "bits", width) != width:
            raise ConfigError(f"{what}: {widths} asks for {width}-bit {role}, the quantizer given has {built.bits} bits; make them agree")  # type: ignore[union-attr]
    return None if widths.is_float else settings


def _default(role: str, width: int) -> str:
    return "magnitude_sign" if role == "weights" and width == 1 else "lsq"


def _obstacle(module: nn.Module, bypassed: Collection[int]) -> str:
    """Why a Linear or Conv2d cannot be replaced; empty when it can."""
    if id(module) in bypassed:
        return f"{' and '.join(cls.__name__ for cls in BYPASS)} reads its weights past the layer in eval"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed from other parameters, as weight_norm does; remove that first"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"it pads with {module.padding_mode!r}, not zeros; pad in a layer of its own before it"
    return ""


def _replace(path: str, module: nn.Module, policy: Mapping[str, Any] | None, obstacle: str) -> tuple[Row | None, nn.Module | None]:
    kind = type(module)
    name = kind.__name__
    if kind in PRODUCTS or kind in PRODUCTS.values():
        if obstacle:
            return Row(path, name, "", False, obstacle), None
        if policy is None:
            return Row(path, name, "", False, "its policy is float"), None
        new = _as(module, PRODUCTS.get(kind, kind))
        assert isinstance(new, QuantizedLayer)
        widths = policy["bits"]
        weights = get(policy["weights"], "weights", widths.weights)
        activations = get(policy["activations"], "activations", widths.activations)
        for quantizer in (weights, activations):
            if quantizer is not None:
                quantizer.owner = f"layer {path!r}"
                quantizer.train(module.training)
        new.set_quantizers(weights, activations)
        note = ", ".join("float" if quantizer is None else quantizer.alias for quantizer in (weights, activations))
        return Row(path, name, str(widths), True, note), new
    if kind in EXACT:
        return _replace_exact(path, module, EXACT[kind])
    if isinstance(module, tuple(PRODUCTS)):
        return Row(path, name, "", False, "a subclass may compute something else"), None
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and kind not in EXACT.values():
        return Row(path, name, "", False, "lobit has BatchNorm1d and BatchNorm2d"), None
    if any(True for _ in module.parameters(recurse=False)) and kind not in EXACT.values():
        return Row(path, name, "", False, "lobit quantizes Linear and Conv2d"), None
    return None, None


def _replace_exact(path: str, module: nn.Module, cls: type[nn.Module]) -> tuple[Row, nn.Module | None]:
    name = type(module).__name__
    if isinstance(module, nn.AvgPool2d):
        try:
            new: nn.Module = lnn.AvgPool2d(
                module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad, module.divisor_override
            )
        except ConfigError as error:
            return Row(path, name, "", False, str(error)), None
        return Row(path, name, "", True, "one order of summation"), new.train(module.training)
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return Row(path, name, "", False, "it has no running statistics"), None
    note = "one order of summation" if isinstance(module, nn.AdaptiveAvgPool2d) else "eval in two exact steps"
    return Row(path, name, "", True, note), _as(module, cls)


def _as(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A module of a subclass that shares everything with ``module``: parameters, buffers, settings, hooks."""
    new = cls.__new__(cls)
    new.__dict__.update(module.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        new.__dict__[table] = module.__dict__[table].copy()
    return new


def _install(model: nn.Module, modules: Mapping[str, nn.Module], made: Mapping[str, nn.Module]) -> None:
    """Put new modules wherever the old ones stand; a module that stands in several places stays one."""
    by_old = {id(modules[path]): new for path, new in made.items()}
    for parent in list(modules.values()):
        for name, child in list(parent._modules.items()):
            if id(child) in by_old:
                parent._modules[name] = by_old[id(child)]
