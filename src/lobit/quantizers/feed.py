"""Data for a model that is not trained: batches in the forms that people have them, run one by one, with every mode put back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError

Batches = Tensor | tuple[Tensor, ...] | Iterable[Any]
"""A tensor, or a tuple of tensors: one batch. Or anything that gives batches in turn, such as a DataLoader or a list."""
Progress = Callable[[int, int | None], object]
"""Called after each batch with the batches done and those of all, None where that is not known."""


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, without gradients and not compiled; every module's mode is put back, whatever happens.

    What observes a model changes it from batch to batch, so `torch.compile` would compile it again and again: each layer, and each step of a recurrent one. What
    was compiled before is kept.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), _uncompiled():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _uncompiled() -> AbstractContextManager[Any]:
    """Compiled functions run as they are written; where nothing is compiled, the compiler is not imported for it."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def feed(model: nn.Module, batches: Batches, progress: Progress | None = None) -> Iterator[int]:
    """Run a model on each batch; yields how many samples the batch holds, before it runs.

    Of a batch that is a tuple or a list, as ``(x, y)``, the model gets as many parts as its forward requires; of a mapping, the entries that forward names. Tensors
    are moved to the device of the model's first parameter.

    Raises
    ------
    ConfigError
        When there is no batch, or one that holds no tensor.
    """
    one = isinstance(batches, Tensor) or (isinstance(batches, tuple) and bool(batches) and all(isinstance(x, Tensor) for x in batches))
    if not one and not isinstance(batches, Iterable):
        raise ConfigError(f"batches must be a tensor, a tuple of tensors or an iterable of batches, not {type(batches).__name__}")
    given: Iterable[Any] = [batches] if one else batches
    total = len(given) if isinstance(given, Sized) else None
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    done = 0
    for batch in given:
        args, keywords = _arguments(model, batch, device)
        first = next((x for x in (*args, *keywords.values()) if isinstance(x, Tensor)), None)
        if first is None:
            raise ConfigError(f"a batch holds no tensor: {type(batch).__name__}; give tensors, tuples such as (x, y), or mappings")
        yield len(first) if first.ndim else 1
        model(*args, **keywords)
        done += 1
        if progress is not None:
            progress(done, total)
    if not done:
        raise ConfigError("batches is empty; give at least one batch of data")


def _arguments(model: nn.Module, batch: Any, device: torch.device) -> tuple[list[Any], dict[str, Any]]:
    while isinstance(inner := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
        model = inner  # data-parallel and compiled wrappers take anything
    parameters = list(inspect.signature(model.forward).parameters.values())
    if isinstance(batch, Mapping):
        named = {p.name for p in parameters} if all(p.kind != p.VAR_KEYWORD for p in parameters) else set(batch)
        return [], {name: _moved(value, device) for name, value in batch.items() if name in named}
    if not isinstance(batch, (tuple, list)):
        return [_moved(batch, device)], {}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return [_moved(value, device) for value in batch[: max(1, len(positional))]], {}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
