"""What each class of torch.nn becomes: one table, one line for a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.nn.attention import linear_of
from lobit.nn.resize import check_mode
from lobit.quantizers.base import Role

ALL: tuple[Role, ...] = ("weights", "activations", "gradients")


def share(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A module of another class that shares everything with ``module``: parameters, buffers, settings, hooks."""
    new = cls.__new__(cls)
    new.__dict__.update(module.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        new.__dict__[table] = module.__dict__[table].copy()
    return new


def _none(module: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Becomes:
    """What a class of torch.nn becomes.

    Parameters
    ----------
    cls : type
        lobit's class. Where it gets quantizers it has ``set_quantizers`` with a parameter for each role, in the order of the roles.
    roles : tuple of str
        The roles it gets quantizers for; none where only its arithmetic is replaced, for an eval that gives the same floats everywhere.
    note : str
        What changes where it gets no quantizers, for the report.
    named : bool
        Whether only a pattern quantizes it: neither a policy for all layers nor ``"*"`` does, and it is not counted as first or last.
    obstacle : callable
        Given the module, why it must stay; empty where nothing stands in the way.
    make : callable
        Given the module and ``cls``, the new module; by default one that shares everything with the old. It may refuse with a `ConfigError`.
    whole : bool
        Whether modules within it are parts of it, which have no policy and no row of their own.
    """

    cls: type[nn.Module]
    roles: tuple[Role, ...] = ()
    note: str = ""
    named: bool = False
    obstacle: Callable[[Any], str] = _none
    make: Callable[[Any, type[nn.Module]], nn.Module] = share
    whole: bool = False


def _computed(module: nn.Module) -> str:
    if isinstance(module._parameters.get("weight"), nn.Parameter):
        return ""
    return "its weight is computed from other parameters, as weight_norm does; remove that first"


def _conv(module: Any) -> str:
    if module.padding_mode != "zeros":
        return f"it pads with {module.padding_mode!r}, not zeros; pad in a layer of its own before it"
    return _computed(module)


def _batch_norm(module: Any) -> str:
    return "it has no running statistics" if module.running_mean is None else ""


def _embedding(module: nn.Embedding) -> str:
    if module.max_norm is not None:
        return f"max_norm={module.max_norm} changes its rows as they are read; use max_norm=None"
    return "sparse=True asks for a sparse gradient; use sparse=False" if module.sparse else ""


def _recurrent(module: Any) -> str:
    if getattr(module, "proj_size", 0):
        return f"proj_size={module.proj_size} projects its states; put a layer behind it instead"
    names = [name for name in module._parameters if name.startswith("weight")]
    return "" if names else "its weights are computed from other parameters, as weight_norm does; remove that first"


def _attention(module: Any) -> str:
    names = ["in_proj_weight"] if module._qkv_same_embed_dim else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    if any(not isinstance(module._parameters.get(name), nn.Parameter) for name in names):
        return "its weights are computed from other parameters, as weight_norm does; remove that first"
    if type(module.out_proj) not in (nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Linear, lnn.Linear):
        return f"its out_proj is a {type(module.out_proj).__name__}, which may compute something else"
    return _computed(module.out_proj)


def _with_linear(old: Any, cls: type[nn.Module]) -> nn.Module:
    new = share(old, cls)
    new.out_proj = linear_of(old.out_proj)
    return new


def _without_nesting(old: Any, cls: type[nn.Module]) -> nn.Module:
    new = share(old, cls)
    new.use_nested_tensor = False  # type: ignore[assignment]  # a bool, of torch.nn.TransformerEncoder
    return new


def _avg_pool(old: Any, cls: type[nn.Module]) -> nn.Module:
    settings = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    cls(**{name: getattr(old, name) for name in settings if hasattr(old, name)})  # refuses settings that it cannot have
    return share(old, cls)


def _upsample(module: nn.Upsample) -> str:
    try:
        check_mode(module.mode)
    except ConfigError as error:
        return str(error)
    return ""


_NORM, _POOL, _RESIZE = "eval in two exact steps", "one order of summation", "one order of operations in eval"

TABLE: dict[type[nn.Module], Becomes] = {
    nn.Linear: Becomes(lnn.Linear, ALL, obstacle=_computed),
    nn.Conv1d: Becomes(lnn.Conv1d, ALL, obstacle=_conv),
    nn.Conv2d: Becomes(lnn.Conv2d, ALL, obstacle=_conv),
    nn.Conv3d: Becomes(lnn.Conv3d, ALL, obstacle=_conv),
    nn.ConvTranspose1d: Becomes(lnn.ConvTranspose1d, ALL, obstacle=_conv),
    nn.ConvTranspose2d: Becomes(lnn.ConvTranspose2d, ALL, obstacle=_conv),
    nn.ConvTranspose3d: Becomes(lnn.ConvTranspose3d, ALL, obstacle=_conv),
    nn.Embedding: Becomes(lnn.Embedding, ("weights",), named=True, obstacle=_embedding),
    nn.RNN: Becomes(lnn.RNN, ALL, obstacle=_recurrent),
    nn.LSTM: Becomes(lnn.LSTM, ALL, obstacle=_recurrent),
    nn.GRU: Becomes(lnn.GRU, ALL, obstacle=_recurrent),
    nn.RNNCell: Becomes(lnn.RNNCell, ALL, obstacle=_recurrent),
    nn.LSTMCell: Becomes(lnn.LSTMCell, ALL, obstacle=_recurrent),
    nn.GRUCell: Becomes(lnn.GRUCell, ALL, obstacle=_recurrent),
    nn.MultiheadAttention: Becomes(lnn.MultiheadAttention, ALL, obstacle=_attention, make=_with_linear, whole=True),
    nn.TransformerEncoderLayer: Becomes(lnn.TransformerEncoderLayer, note="its layers run in eval too, past no fast path"),
    nn.TransformerEncoder: Becomes(nn.TransformerEncoder, note="no nested tensors, which only the fast path takes", make=_without_nesting),
    nn.BatchNorm1d: Becomes(lnn.BatchNorm1d, note=_NORM, obstacle=_batch_norm),
    nn.BatchNorm2d: Becomes(lnn.BatchNorm2d, note=_NORM, obstacle=_batch_norm),
    nn.BatchNorm3d: Becomes(lnn.BatchNorm3d, note=_NORM, obstacle=_batch_norm),
    nn.AvgPool1d: Becomes(lnn.AvgPool1d, note=_POOL, make=_avg_pool),
    nn.AvgPool2d: Becomes(lnn.AvgPool2d, note=_POOL, make=_avg_pool),
    nn.AvgPool3d: Becomes(lnn.AvgPool3d, note=_POOL, make=_avg_pool),
    nn.AdaptiveAvgPool1d: Becomes(lnn.AdaptiveAvgPool1d, note=_POOL),
    nn.AdaptiveAvgPool2d: Becomes(lnn.AdaptiveAvgPool2d, note=_POOL),
    nn.AdaptiveAvgPool3d: Becomes(lnn.AdaptiveAvgPool3d, note=_POOL),
    nn.Upsample: Becomes(lnn.Upsample, note=_RESIZE, obstacle=_upsample),
    nn.UpsamplingNearest2d: Becomes(lnn.UpsamplingNearest2d, note=_RESIZE),
    nn.UpsamplingBilinear2d: Becomes(lnn.UpsamplingBilinear2d, note=_RESIZE),
}
"""Classes as they are; their subclasses may compute something else and are left."""

BYPASS: tuple[type[nn.Module], ...] = (nn.TransformerEncoderLayer,)
"""Modules whose subclasses in eval read the weights of the layers in them themselves, past any quantizer."""


BESIDE = (lnn.ShiftBatchNorm1d, lnn.ShiftBatchNorm2d)
"""Classes of lobit that replace none of torch.nn's: they stay, and are as exact as those of the table."""


def becomes(module: nn.Module) -> Becomes | None:
    """The table's entry of a module; that of a quantizable layer which is lobit's already, too."""
    kind = type(module)
    return TABLE.get(kind) or next((entry for entry in TABLE.values() if entry.roles and entry.cls is kind), None)


def bypasses(module: nn.Module) -> bool:
    """Whether a module may read the weights of the layers in it past them: those classes' subclasses, which nothing replaces."""
    return isinstance(module, BYPASS) and becomes(module) is None and not is_ours(module)


def is_ours(module: nn.Module) -> bool:
    """Whether a module is of a class that the table leads to, or that lobit has beside torch.nn's."""
    return any(type(module) is entry.cls for entry in TABLE.values()) or type(module) in BESIDE


def why_not(module: nn.Module) -> str:
    """Why a module with parameters of its own, which has no entry, stays as it is."""
    kind = type(module)
    if isinstance(module, tuple(TABLE)):
        return "a subclass may compute something else"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return f"lobit has {', '.join(entry.cls.__name__ for entry in TABLE.values() if entry.note == _NORM)}"
    if kind.__module__.partition(".")[0] != "torch":
        return f"a class of {kind.__module__}, which lobit does not know; its layers of torch.nn are listed by themselves"
    return "lobit has no low-bit form of it"
