"""Where numbers stop being finite: the first layer whose output is not, and the parameters and statistics that are not.

Nothing here runs in a step whose loss is finite, but for a sum over the parameters every `EVERY` batches: signs hide a NaN from the loss, and what
is NaN once in a parameter, in Adam's moments or in a running statistic stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lobit.quantizers import WeightQuantizer

EVERY = 100
"""Batches between two looks at the parameters; under 0.1 % of a run's time for nets of any size, as a step costs far more than a sum."""


@torch.no_grad()
def first_layer(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> str | None:
    """Run a batch again, watching each module, and describe the first whose output is not finite: what came in, its parameters, what came out.

    Parameters
    ----------
    model : nn.Module
        In the mode, and with the random state, in which the batch went wrong.
    loss : callable
    batch : tuple of Tensor

    Returns
    -------
    str or None
        A clause for an error message; None where all is finite this time.
    """
    x, labels = batch
    if not _finite(x):
        return f"the data are not finite: {_count(x)} of the batch; look for NaN in the data set"
    with watched(model) as found:
        try:
            logits = model(x)
            if not found and not torch.isfinite(loss(logits, labels)):
                found.append(f"all layers' outputs are finite, the loss of logits up to {float(logits.abs().max()):.3g} is not")
        except Exception:
            if not found:  # a quantizer that refuses a batch does so after the layer that made it
                raise
    return found[0] if found else None


@contextmanager
def watched(model: nn.Module) -> Iterator[list[str]]:
    """Watch the modules of a model in the block.

    Yields
    ------
    list of str
        Empty until a value is not finite; then one clause for an error message, about the first.
    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        wrong = next((tensor for tensor in tensors_in((inputs, named)) if not _finite(tensor)), None)
        if wrong is not None and not found:
            found.append(
                f"the first value that is not finite comes into {title(names[module], module)} from outside any layer: {_count(wrong)}"
            )

    def after(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        wrong = next((tensor for tensor in tensors_in(output) if not _finite(tensor)), None)
        if wrong is not None and not found:
            largest = max((float(tensor.abs().max()) for tensor in tensors_in((inputs, named)) if tensor.numel()), default=0.0)
            own = describe_not_finite(module) or "its own parameters and statistics are finite"
            found.append(
                f"the first layer whose output is not finite is {title(names[module], module)}: {_count(wrong)}; its input is finite, up to "
                f"{largest:.3g}, {own}"
            )

    # the weights' quantizer belongs to its layer, whose parameters are named with it
    layers = [module for module in names if not isinstance(module, WeightQuantizer)]
    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in layers]
    handles += [module.register_forward_hook(after, with_kwargs=True) for module in layers]
    try:
        yield found
    finally:
        for hook in handles:
            hook.remove()


def describe_not_finite(model: nn.Module, *, gradients: bool = False) -> str | None:
    """Name the parameters and statistics, or the gradients, that are not finite, the first layer's first, in the order in which the model holds them; None where all are."""
    wrong = [(name, tensor) for name, tensor in (_gradients if gradients else _state)(model) if not _finite(tensor)]
    if not wrong:
        return None
    path, _, own = wrong[0][0].rpartition(".")
    layer = f" of {title(path, model.get_submodule(path))}" if path else ""
    more = f" (and {len(wrong) - 1} more: {', '.join(repr(name) for name, _ in wrong[1:4])}{', ..' if len(wrong) > 4 else ''})"
    what = f"the gradient of {own!r}" if gradients else repr(own)
    return f"{what}{layer} is not finite: {_count(wrong[0][1])}{more if len(wrong) > 1 else ''}"


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Floats layer by layer: parameters, then buffers of each module."""
    for path, module in model.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.is_floating_point():
                yield f"{path}.{name}" if path else name, tensor.detach()


def _gradients(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Gradients, where parameters have one."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield name, parameter.grad.detach()


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite: a finite sum says so in one pass; another sum may have overflowed."""
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def _count(tensor: Tensor) -> str:
    wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
    kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinite"
    return f"{wrong} of {tensor.numel()} values ({kind})"


def title(path: str, module: nn.Module) -> str:
    """A module's name with its class."""
    return f"{path!r} ({type(module).__name__})" if path else f"the model itself ({type(module).__name__})"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of arguments or of an output, packed sequences' among them, in order."""
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
