"""Bop: one-bit weights that flip where the average gradient asks for it, with no latent weights behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import nn
from torch.optim import Optimizer

from lobit.errors import ConfigError
from lobit.optim.blocks import blocks, detached, like, with_gradients
from lobit.optim.combined import CombinedOptimizer
from lobit.optim.groups import is_one_bit, is_sign, parameter_groups, parameters_of, weight_quantizer
from lobit.optim.latent import StepScale
from lobit.quantizers import WeightQuantizer


class Bop(Optimizer):
    """The binary optimizer, for one-bit weights only: the sign of a weight is flipped, and its magnitude stays.

    With ``g`` the gradient of the weights and ``m`` from 0: ``m <- (1 - gamma) m + gamma g``, then ``w <- -w`` where ``|m| > threshold`` and
    ``sign(m) = sign(w)``. Weights that are 0 count as +1, and become the smallest number that has a sign: the quantizer
    ``heaviside``, to which 0 is code 0, then gives them code 1. Where the magnitude has a meaning, as with the
    quantizer ``magnitude_sign``, it keeps its first value.

    `with_bop` takes the one-bit weights of a model, and another optimizer for all else. Its Bop knows their quantizers, and refuses a step while these are
    off or have more bits, as a schedule may set them: a flip means nothing to other weights than signs.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        One-bit weights, or groups of them.
    gamma : float
        How fast the average follows the gradient, above 0 to 1; kept as the group's ``lr``, so that schedules of the rate lower it.
    threshold : float
        How far the average must go for a flip; 0 or more.

    Raises
    ------
    ConfigError
        For a setting out of its range; on a step, for sparse gradients, or for weights of `with_bop` that are no signs at that time.

    References
    ----------
    Helwegen et al., Latent Weights Do Not Exist: Rethinking Binarized Neural Network Optimization, arXiv 1906.02107, Algorithm 1.
    """

    _quantizers: Mapping[str, WeightQuantizer] = {}
    """By the names of the weights; a copy knows none, as its own would be copies."""

    def __init__(self, params: Iterable[Any], gamma: float = 1e-4, threshold: float = 1e-8) -> None:
        super().__init__(params, {"lr": gamma, "threshold": threshold})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after a check of its settings."""
        chosen = {**self.defaults, **param_group}
        if not (isinstance(chosen["lr"], (int, float)) and 0 < chosen["lr"] <= 1):
            raise ConfigError(f"gamma of Bop must be above 0 to 1, not {chosen['lr']!r}")
        if not (isinstance(chosen["threshold"], (int, float)) and 0 <= chosen["threshold"] < math.inf):
            raise ConfigError(f"threshold of Bop must be 0 or more, not {chosen['threshold']!r}")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure``, if given, computes loss and gradients first."""
        self._refuse_others_than_signs()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = with_gradients(group, self)
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["exp_avg"] = like(weight)
                    weight.masked_fill_(weight == 0, torch.finfo(weight.dtype).tiny)
            averages = [self.state[weight]["exp_avg"] for weight in weights]
            for ws, gradients, ms in blocks(detached(weights), detached([weight.grad for weight in weights]), averages):
                torch._foreach_lerp_(ms, [gradient.to(m.dtype) for gradient, m in zip(gradients, ms, strict=True)], group["lr"])
                for w, m in zip(ws, ms, strict=True):
                    # the sign of w times m is above the threshold where both signs agree and |m| is
                    flipped = torch.where(w < 0, -m, m) > group["threshold"]
                    w.mul_(torch.where(flipped, -1.0, 1.0).to(w.dtype))
        return loss

    def _refuse_others_than_signs(self) -> None:
        for name, quantizer in self._quantizers.items():
            if quantizer.off or not is_sign(quantizer):
                now = "in float" if quantizer.off else f"of {quantizer.code_type.bits} bits"
                raise ConfigError(
                    f"Bop flips the signs of one-bit weights, and {name!r} is {now} at this time, as a schedule of bits sets it; "
                    "leave weights out of the schedule ('W1A8' for 'W8A8', no delay), or take another optimizer"
                )


def with_bop(
    model: nn.Module,
    rest: Callable[[list[dict[str, Any]]], Optimizer],
    *,
    lr: float = 1e-3,
    gamma: float = 1e-4,
    threshold: float = 1e-8,
    step_scale: StepScale | None = None,
    weight_decay: float = 0.0,
) -> CombinedOptimizer:
    """`Bop` for the one-bit weights of a model, another optimizer for all its other parameters, as one.

    Parameters
    ----------
    model : nn.Module
    rest : callable
        Makes the other optimizer of groups, such as ``torch.optim.Adam``, or a `functools.partial` of it with settings.
    lr, step_scale, weight_decay
        Of the other optimizer, as `parameter_groups` takes them.
    gamma, threshold
        Of Bop.

    Raises
    ------
    ConfigError
        When the model has no one-bit weights, or nothing else to train; on a step, while a schedule gives the one-bit weights more bits or none.

    Examples
    --------
    >>> from lobit import nn as lnn
    >>> model = nn.Sequential(lnn.Linear(4, 8, weight_quantizer="sign"), lnn.BatchNorm1d(8))
    >>> [type(part).__name__ for part in with_bop(model, torch.optim.Adam).optimizers]
    ['Bop', 'Adam']
    """
    one_bit = {name: (parameter, module) for name, parameter, module in parameters_of(model) if is_one_bit(name, parameter, module)}
    if not one_bit:
        raise ConfigError("the model has no one-bit weights for Bop; quantize it with W1, or take another optimizer")
    taken = {id(parameter) for parameter, _ in one_bit.values()}
    groups = parameter_groups(model, lr, step_scale=step_scale, weight_decay=weight_decay)
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]
    left = [group for group in groups if group["params"]]
    if not left:
        raise ConfigError("the model has nothing but one-bit weights; use Bop(model.parameters()) alone")
    bop = Bop([parameter for parameter, _ in one_bit.values()], gamma, threshold)
    bop._quantizers = {name: found for name, place in one_bit.items() if (found := weight_quantizer(*place)) is not None}
    return CombinedOptimizer(bop, rest(left))
