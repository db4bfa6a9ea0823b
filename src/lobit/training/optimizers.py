"""The optimizer and the rates of a recipe."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from lobit import optim
from lobit.recipes import BopSpec, OptimizerSpec, Recipe, SGDSpec, ShiftAdaMaxSpec


def build_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer, fused where torch has it; each group keeps its first rate as ``initial_lr``.

    Raises
    ------
    ConfigError
        Where the optimizer does not fit the model: Bop without one-bit weights.
    """
    spec = recipe.optimizer
    groups = partial(optim.parameter_groups, model, spec.lr, step_scale=recipe.step_scale, weight_decay=spec.weight_decay)
    optimizer: Optimizer
    match spec:
        case SGDSpec():
            optimizer = torch.optim.SGD(groups(), lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True)
        case ShiftAdaMaxSpec():
            optimizer = optim.ShiftAdaMax(groups(), spec.lr, None if spec.betas is None else (spec.betas[0], spec.betas[1]), form=spec.form)
        case BopSpec():
            optimizer = optim.with_bop(
                model,
                partial(torch.optim.Adam, fused=True),
                lr=spec.lr,
                gamma=spec.gamma,
                threshold=spec.threshold,
                step_scale=recipe.step_scale,
                weight_decay=spec.weight_decay,
            )
        case _:
            optimizer = torch.optim.Adam(groups(), lr=spec.lr, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def learning_rate(spec: OptimizerSpec, epoch: int, epochs: int) -> float:
    """The rate of an epoch, counted from 0: the first epoch has ``lr``, the last ``lr_end``.

    exponential: ``lr * (lr_end / lr)^t``; cosine: ``lr_end + (lr - lr_end) (1 + cos(pi t)) / 2``; with ``t = epoch / (epochs - 1)``. step:
    ``lr * 2^-floor(epoch / halve_every)``.
    """
    if spec.halve_every is not None:
        return math.ldexp(spec.lr, -(epoch // spec.halve_every))
    if spec.lr_end is None or epochs == 1:
        return spec.lr
    t = min(epoch / (epochs - 1), 1.0)
    if spec.schedule == "exponential":
        return float(spec.lr * (spec.lr_end / spec.lr) ** t)
    return spec.lr_end + (spec.lr - spec.lr_end) * (1 + math.cos(math.pi * t)) / 2
