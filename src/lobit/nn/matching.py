"""Batch-norm statistics of a low-bit net such that every channel comes out as it does in the float net."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError


@torch.no_grad()
def match_batch_norm(model: nn.Module, reference: nn.Module, *inputs: Tensor) -> None:
    """Set the statistics of a model's batch norms so that on ``inputs`` each channel has the mean and deviation that it has in the float net.

    With ``m, d`` the mean and deviation of what reaches a norm here and ``m', d'`` there, and ``mu, var`` the float net's statistics, the low-bit net reads
    ``s`` as ``(s - m) d' / d + m'``, which is the norm with

    ``mean = m - (m' - mu) d / d'``, ``var + eps = (var + eps) (d / d')^2``.

    Unlike statistics that are estimated anew (`reestimate_batch_norm`), these stay the float net's where nothing is quantized, whatever the inputs show.
    Low-bit weights shift the channels of a net, and the shift adds up from layer to layer; norms are set in the order in which they run, each behind those before it.
    No weight is trained. Both nets run in eval mode; their modes are restored.

    Parameters
    ----------
    model : nn.Module
        Made from ``reference`` by `quantize_`, and calibrated; its batch norms are changed.
    reference : nn.Module
        The float net, whose modules have the same names.
    *inputs : Tensor
        One batch of what both nets take, some hundreds of values for each channel at the least.

    Raises
    ------
    ConfigError
        When the nets' batch norms have different names, or one has no running statistics; nothing is changed then.
    """
    theirs, ours = _norms(reference), _norms(model)
    if theirs.keys() != ours.keys() or not ours:
        only = sorted(theirs.keys() ^ ours.keys())
        why = (
            f"batch norm {only[0]!r} is in one of the nets alone, or a ShiftBatchNorm there, which cannot be matched"
            if only
            else "the nets have no batch norm"
        )
        raise ConfigError(f"{why}; give the float net that the model was made from, such as a deepcopy taken before quantize_")
    for name, norm in {**ours, **theirs}.items():
        if norm.running_mean is None or norm.running_var is None:
            raise ConfigError(f"batch norm {name!r} has no running statistics; use track_running_stats=True")
    wanted: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str, s: Tensor) -> None:
        wanted[name] = _moments(s)

    def put(name: str, s: Tensor) -> None:
        if name not in wanted:
            return
        (mean, deviation), (other, spread), old, new = _moments(s), wanted[name], theirs[name], ours[name]
        assert old.running_mean is not None and old.running_var is not None  # noqa: PT018  # checked above
        assert new.running_mean is not None and new.running_var is not None  # noqa: PT018
        factor = deviation / spread
        new.running_mean.copy_(mean - (other - old.running_mean) * factor)
        new.running_var.copy_(((old.running_var + old.eps) * factor.square() - new.eps).clamp(min=0.0))

    for net, norms, see in ((reference, theirs, look), (model, ours, put)):
        modes = [(module, module.training) for module in net.modules()]
        net.eval()
        try:
            with _ahead(norms, see):
                net(*inputs)
        finally:
            for module, training in modes:
                module.training = training


def _norms(net: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}


def _moments(s: Tensor) -> tuple[Tensor, Tensor]:
    axes = [axis for axis in range(s.ndim) if axis != 1]
    return s.mean(axes), s.std(axes).clamp(min=1e-6)


@contextmanager
def _ahead(modules: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(lambda _, args, name=name: see(name, args[0])) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
