"""Guards for a training loop of one's own: they name the layer whose values turn NaN, and the layer that no gradient reaches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError, LobitError
from lobit.quantizers import ActivationQuantizer
from lobit.quantizers.tracing import traced
from lobit.training import finite
from lobit.training.matrices import Matrix, matrices

LOOK = 4096
"""Gradients that are looked at first: where one of these is not zero, the rest need not be read."""
GATES = (ActivationQuantizer, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish)
"""Modules that stop gradients where their input is outside of a window."""


@contextmanager
def all_finite(model: nn.Module) -> Iterator[None]:
    """Watch the forward passes in the block, and parameters, statistics and gradients at its end.

    It reads every output once more, so it costs about as much as an activation in each layer; use it where something is wrong, or every so many steps.

    Raises
    ------
    LobitError
        Naming the first layer whose output is not finite, with what came in and its parameters; or the first parameter, statistic or gradient.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with all_finite(model):
    ...     model(torch.ones(1, 2)).sum().backward()
    """
    with finite.watched(model) as found:
        try:
            yield
        except Exception as error:
            if found:
                raise LobitError(_advice(found[0])) from error
            raise
    if found:
        raise LobitError(_advice(found[0]))
    check_finite(model)


def check_finite(model: nn.Module) -> None:
    """Look at parameters, statistics and gradients, for one pass over them.

    Raises
    ------
    LobitError
        Naming the layer of the first that is not finite, in the order in which the model holds them.
    """
    wrong = finite.describe_not_finite(model) or finite.describe_not_finite(model, gradients=True)
    if wrong:
        raise LobitError(_advice(wrong))


def _advice(what: str) -> str:
    return f"{what}. Lower the learning rate, clip gradients, or load the last good checkpoint"


class Starved:
    """Names layers whose weights get no gradient for some steps in a row, and the likely reason.

    Call `check` after each backward pass. A layer is starved when every gradient of its weight is 0, or it has none: its codes then never change again.
    The reason is looked for in the last step of patience, whose forward pass is watched.

    Parameters
    ----------
    model : nn.Module
        Its quantized layers are looked at, and where it has none, all modules with a ``weight`` of two or more axes.
    patience : int
        Steps in a row, from 1.
    action : {"warn", "error"} or callable
        A Python warning, a `LobitError`, or what is called with the message. Each layer is told once, and again after it has had a gradient.

    Raises
    ------
    ConfigError
        For a patience below 1 or an unknown action.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = nn.init.constant_(model[0].bias, -100.0)
    >>> guard = Starved(model, patience=2, action=print)
    >>> for _ in range(2):
    ...     model(torch.ones(4, 2)).sum().backward()
    ...     _ = guard.check()
    '0' (Linear) is starved: no gradient has reached its weights for 2 steps; behind it, '1' (ReLU) lets no gradient through, as all its input is outside of its window
    '2' (Linear) is starved: no gradient has reached its weights for 2 steps; its input is all zero
    """

    def __init__(self, model: nn.Module, patience: int = 100, action: Literal["warn", "error"] | Callable[[str], object] = "warn") -> None:
        if type(patience) is not int or patience < 1:
            raise ConfigError(f"patience must be a whole number of steps from 1, not {patience!r}")
        if not callable(action) and action not in ("warn", "error"):
            raise ConfigError(f"action must be 'warn', 'error' or callable, not {action!r}")
        self.patience = patience
        self._act = action if callable(action) else _ACTIONS[action]
        found = list(matrices(model))
        self._matrices = {matrix.name: matrix for matrix in found if matrix.in_quantized_layer} or {matrix.name: matrix for matrix in found}
        self._model = model
        self._count = dict.fromkeys(self._matrices, 0)
        self._probe: _Probe | None = None
        if patience == 1:
            self._probe = _Probe(model)

    @torch.no_grad()
    def check(self) -> list[str]:
        """Look at the gradients of a step; the layers that are starved now."""
        for name, matrix in self._matrices.items():
            self._count[name] = 0 if _has_gradient(matrix.weight) else self._count[name] + 1
        due = [name for name, count in self._count.items() if count == self.patience]
        try:
            for name in due:
                self._act(self._describe(name))
        finally:
            if self._probe is not None and self.patience > 1:
                self._probe.close()
                self._probe = None
            if self._probe is None and any(count == self.patience - 1 for count in self._count.values()):
                self._probe = _Probe(self._model)
        return [name for name, count in self._count.items() if count >= self.patience]

    def close(self) -> None:
        """Stop watching the model."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _describe(self, name: str) -> str:
        matrix, steps = self._matrices[name], f"{self.patience} steps" if self.patience > 1 else "a step"
        reason = _own_reason(matrix) or (self._probe.reason(matrix.layer) if self._probe else None) or _outside_reason(matrix)
        return f"{finite.title(name, matrix.layer)} is starved: no gradient has reached its weights for {steps}; {reason}"


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _raise(message: str) -> None:
    raise LobitError(message)


_ACTIONS: dict[str, Callable[[str], object]] = {"warn": _warn, "error": _raise}


def _has_gradient(weight: Tensor) -> bool:
    if weight.grad is None:
        return False
    flat = weight.grad.flatten()
    return bool(flat[:LOOK].any()) or bool(flat.any())


def _own_reason(matrix: Matrix) -> str | None:
    """What the weights themselves say."""
    weight, quantizer = matrix.weight, matrix.quantizer
    if not weight.requires_grad:
        return "its weights are frozen (requires_grad is False)"
    if weight.grad is None or quantizer is None:
        return None
    with torch.enable_grad():
        probe = weight.detach().clone().requires_grad_()
        values = quantizer(matrix.rows(probe)).values()
        (passed,) = torch.autograd.grad(values.sum(), probe, allow_unused=True) if values.requires_grad else (None,)
    if passed is None or not bool(passed.any()):
        return (
            f"its weights, up to {float(weight.detach().abs().max()):.3g}, are all outside of the window of quantizer {quantizer.alias!r}: clip them after "
            "each step (lobit.optim.clip_latent_weights) or lower the learning rate"
        )
    return None


def _outside_reason(matrix: Matrix) -> str:
    """What is left where neither the weights nor what runs behind them says why."""
    if matrix.weight.grad is None:
        return "they are not in the graph of the loss: the layer is not used, or its output is detached"
    return "the loss does not depend on what it gives"


class _Probe:
    """Watches a forward pass: which modules ran after which, what came into layers, and which gates let no gradient through."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._order: list[tuple[nn.Module, bool, bool]] = []
        layers = {matrix.layer for matrix in matrices(model)}
        watched = [module for module in self._names if isinstance(module, GATES) or module in layers]
        self._handles = [module.register_forward_hook(self._see, with_kwargs=True) for module in watched]
        self._handles.append(model.register_forward_pre_hook(lambda module, inputs: self._order.clear()))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def reason(self, layer: nn.Module) -> str | None:
        """Why no gradient comes to a layer, from the pass that was seen last."""
        ran = [entry[0] for entry in self._order]
        if layer not in ran:
            return "it did not run in the last forward pass"
        place = ran.index(layer)
        if self._order[place][1]:
            return "its input is all zero"
        for module, _, closed in self._order[place + 1 :]:
            if closed:
                return f"behind it, {finite.title(self._names[module], module)} lets no gradient through, as all its input is outside of its window"
        return None

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        x = None if traced() else next(finite.tensors_in((inputs, named)), None)
        if x is None:
            return
        self._order.append(
            (module, not bool(x.any()), isinstance(module, GATES) and not getattr(module, "off", False) and _closed(module, x))
        )


def _closed(gate: nn.Module, x: Tensor) -> bool:
    """Whether the derivative of a gate is zero at every value of x; the random numbers of training stay as they were."""
    forward = type(gate).forward  # not the module's call, whose hook this is
    with torch.random.fork_rng(), torch.enable_grad():
        probe = x.clone().requires_grad_()
        y = forward(gate, probe)
        values = y if isinstance(y, Tensor) else y.values()
        if not values.requires_grad:
            return True
        (passed,) = torch.autograd.grad(values.sum(), probe, allow_unused=True)
    return passed is None or not bool(passed.any())
