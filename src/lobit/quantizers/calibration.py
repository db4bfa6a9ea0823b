"""Calibration: quantizers take their ranges from data, while nothing is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantizer
from lobit.quantizers.feed import Batches, Progress, feed, in_eval
from lobit.quantizers.from_data import FromData, FromWeights
from lobit.quantizers.observer import Observer
from lobit.quantizers.ranges import Method, MinMax, Percentile
from lobit.quantizers.search import MeanSquaredError

METHODS: Mapping[str, type[Any]] = {"min-max": MinMax, "percentile": Percentile, "mse": MeanSquaredError}


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Let quantizers that have seen no data start from the batch that runs through the model in this block, as they would at the first batch of training.

    No gradient is taken, batch norm statistics stay, quantizers that have started already stay as they are. `lobit.calibrate` chooses ranges for all
    the data that it is given.

    Examples
    --------
    >>> import torch
    >>> from lobit.quantizers import LSQ
    >>> quantizer = LSQ(4).eval()
    >>> with calibrating(quantizer):
    ...     _ = quantizer(torch.tensor([-1.0, 0.5, 2.0]))
    >>> str(quantizer.code_type)
    'signed4'
    """
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    with in_eval(model):
        try:
            for quantizer in quantizers:
                quantizer.calibrating = True
            yield
        finally:
            for quantizer in quantizers:
                quantizer.calibrating = False


def calibrate(
    model: nn.Module,
    batches: Batches,
    *,
    method: str | Method = "mse",
    weights: str | Method | None = "mse",
    progress: Progress | None = None,
) -> None:
    """Quantize a trained model without training it: every quantizer chooses its range for data.

    The data passes once, in eval mode. Weights take their ranges first, so that layers compute with codes of weights; activations stay float while they are observed, so that no
    quantizer's choice depends on another's, on the order of the batches or on where they are cut. Memory does not grow with the data. Quantizers whose
    range is fixed (signs, DoReFa, LinearQuant) quantize as ever. What was chosen or learned before is chosen anew. Under
    `torch.distributed` each process brings its own data and all choose for all of it.

    Parameters
    ----------
    model : nn.Module
        With quantizers, as `lobit.quantize_` makes it. Modes are left as they were.
    batches : Tensor, tuple of Tensors, or iterable of batches
        Inputs of the model: one batch, or many, such as a DataLoader's ``(x, y)``. A model gets as many parts of a tuple as its forward requires.
    method : {"mse", "min-max", "percentile"} or Method
        How activations choose: `MeanSquaredError`, `MinMax` or `Percentile`.
    weights : {"mse", "min-max", "percentile"}, Method or None
        How weights choose, each output channel by itself where they have a scale for each; None leaves theirs as they are.
    progress : callable, optional
        Called after each batch with the batches done and those of all, None where that is not known.

    Raises
    ------
    ConfigError
        For an unknown method, no data, a model without quantizers that take data, values that are not finite, or a layer whose quantizer saw no data or nothing but
        zeros. It names the layer; activations are then as they were.

    Examples
    --------
    >>> import torch, lobit
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> _ = lobit.quantize_(net, "W4A4")
    >>> lobit.calibrate(net, [torch.randn(32, 8) for _ in range(4)])
    >>> [str(net[i].input_quantizer.code_type) for i in (0, 2)]
    ['signed8', 'unsigned8']
    """
    chosen, of_weights = _method(method), None if weights is None else _method(weights)
    activations = {path: module for path, module in model.named_modules() if isinstance(module, FromData)}
    fitted = [module for module in model.modules() if isinstance(module, FromWeights)] if of_weights is not None else []
    if not activations and not fitted:
        some = any(isinstance(module, Quantizer) for module in model.modules())
        raise ConfigError(
            "none of the model's quantizers takes its range from data; they are ready as they are, or choose ones that do: lsq, affine, .."
            if some
            else "the model has no quantizer that takes its range from data; quantize it first: lobit.quantize_(model, 'W8A8')"
        )
    with in_eval(model):
        try:
            for quantizer in activations.values():
                quantizer.observer = Observer(chosen.momentum)
            for weight_quantizer in fitted:
                weight_quantizer.method = of_weights
            for _ in feed(model, batches, progress):
                pass
            seen = {path: quantizer.observer for path, quantizer in activations.items() if quantizer.observer is not None}
        finally:
            for quantizer in activations.values():
                quantizer.observer = None
            for weight_quantizer in fitted:
                weight_quantizer.method = None
        for path, observer in seen.items():
            observer.join_processes()
            _check(path, observer)
        for path, observer in seen.items():
            activations[path].settle(observer.sample(), chosen)


def _check(path: str, observer: Observer) -> None:
    parts = path.split(".")
    layer = ".".join(itertools.takewhile(lambda part: not part.endswith("quantizer"), parts)) or path
    if observer.count == 0:
        raise ConfigError(
            f"layer {layer!r} saw no data: no batch reached it; give data that runs through it, or leave it out of the policy"
        )
    if observer.only_zeros:
        raise ConfigError(
            f"layer {layer!r} saw nothing but zeros, from which no range follows; look for a dead layer before it, or leave it out of the policy"
        )


def _method(identifier: str | Method) -> Method:
    if isinstance(identifier, str):
        if identifier not in METHODS:
            raise ConfigError(f"no method of calibration is called {identifier!r}; choose one of {', '.join(METHODS)}")
        return METHODS[identifier]()  # type: ignore[no-any-return]
    if not callable(getattr(identifier, "fit", None)):
        raise ConfigError(
            f"{identifier!r} is no method of calibration; give one of {', '.join(METHODS)}, or an object such as Percentile(99.9)"
        )
    return identifier
