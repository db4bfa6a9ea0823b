"""Shift-based AdaMax, whose products with rates and norms are binary shifts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from lobit.errors import ConfigError
from lobit.optim.blocks import blocks, detached, like, with_gradients
from lobit.quantizers import ap2

Form = Literal["torch", "paper"]
_DEFAULTS: dict[str, dict[str, Any]] = {
    "torch": {"lr": 2.0**-6, "betas": (0.9, 0.999), "eps": 2.0**-27},
    "paper": {"lr": 2.0**-10, "betas": (1 - 2.0**-3, 1 - 2.0**-10), "eps": 0.0},
}


class ShiftAdaMax(Optimizer):
    """AdaMax by shifts: the rate and the norm that divides the step are powers of two.

    With ``t`` the steps of a parameter, ``g`` its gradient plus ``weight_decay`` times itself, `AP2` the nearest power of two, and `m`, `v` from 0:

    ``form="torch"``, as the released Torch code, by default ``lr = 2^-6, b1 = 0.9, b2 = 0.999, eps = 2^-27``::

        m <- b1 m + (1 - b1) g;  v <- AP2(max(b2 v, |g|)) + eps;  x <- x - AP2(lr / (1 - b1^t)) f m / v

    ``form="paper"``, Algorithm 3, by default ``lr = 2^-10, 1 - b1 = 2^-3, 1 - b2 = 2^-10``::

        m <- b1 m + (1 - b1) g;  v <- max(b2 v, |g|);  x <- x - lr f AP2(1 / (1 - b1^t)) m AP2(1 / v)

    ``f`` is the group's ``step_factor``, which `parameter_groups` with a step scale has put into its ``lr``: it is taken out before a rate is rounded. With the
    default ``b2`` the norm of the Torch form never falls, as ``AP2(b2 2^k) = 2^k``. Where ``v`` is 0, so is the step. Clip latent weights after each step,
    `clip_latent_weights`.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters or groups.
    lr : float, optional
        Positive.
    betas : pair of float, optional
        ``b1`` and ``b2``, from 0 to below 1.
    eps : float, optional
        0 or more; above 0 in the Torch form only.
    weight_decay : float
        L2 penalty.
    form : {"torch", "paper"}

    Raises
    ------
    ConfigError
        For a setting out of its range; on a step, for sparse gradients.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, Algorithm 3; the released Torch code.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.0,
        form: Form = "torch",
    ) -> None:
        if form not in _DEFAULTS:
            raise ConfigError(f"form of ShiftAdaMax must be 'torch' or 'paper', not {form!r}")
        given = {"lr": lr, "betas": betas, "eps": eps}
        chosen = _DEFAULTS[form] | {name: value for name, value in given.items() if value is not None}
        super().__init__(params, {**chosen, "weight_decay": weight_decay, "form": form})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after a check of its settings."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure``, if given, computes loss and gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_time: dict[int, list[Tensor]] = {}
            for parameter in with_gradients(group, self):
                state = self.state[parameter]
                if not state:
                    state.update(step=0, exp_avg=like(parameter), exp_inf=like(parameter))
                state["step"] = int(state["step"]) + 1
                by_time.setdefault(state["step"], []).append(parameter)
            for t, parameters in by_time.items():
                states = [self.state[parameter] for parameter in parameters]
                moments = ([state[name] for state in states] for name in ("exp_avg", "exp_inf"))
                rate = shift_rate(group, t)
                for block in blocks(detached(parameters), detached([parameter.grad for parameter in parameters]), *moments):
                    _update(group, rate, *block)
        return loss


def _check(group: dict[str, Any]) -> None:
    lr, betas, eps = group["lr"], group["betas"], group["eps"]
    if not _is_number(lr) or not lr:
        raise ConfigError(f"lr of ShiftAdaMax must be above 0, not {lr!r}")
    if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(_is_number(beta, below=1.0) for beta in betas):
        raise ConfigError(f"betas of ShiftAdaMax must be two numbers from 0 to below 1, not {betas!r}")
    if not _is_number(eps) or (group["form"] == "paper" and eps):
        raise ConfigError(f"eps of ShiftAdaMax must be 0 or more, and 0 in the paper's form, which has none; not {eps!r}")
    if not _is_number(group["weight_decay"]):
        raise ConfigError(f"weight_decay of ShiftAdaMax must be 0 or more, not {group['weight_decay']!r}")


def _is_number(value: object, below: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < below


def shift_rate(group: dict[str, Any], t: int) -> float:
    """The factor of ``m / v`` in step ``t``: ``AP2(lr / (1 - b1^t))`` times the group's step factor, or ``lr AP2(1 / (1 - b1^t))``; in float64."""
    correction = 1.0 - group["betas"][0] ** t
    if group["form"] == "paper":
        return float(group["lr"] * _ap2(1.0 / correction))
    factor = group.get("step_factor", 1.0)
    return float(factor * _ap2(group["lr"] / factor / correction))


def _ap2(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    return math.ldexp(1.0, exponent - (2 * mantissa <= math.sqrt(2)))


def _update(
    group: dict[str, Any],
    rate: float,
    parameters: list[Tensor],
    gradients: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
) -> None:
    """One step of some parameters that have the same number of steps behind them."""
    b1, b2 = group["betas"]
    wide = [gradient.to(moment.dtype) for gradient, moment in zip(gradients, m, strict=True)]
    if group["weight_decay"]:
        decayed = [parameter.to(moment.dtype) for parameter, moment in zip(parameters, m, strict=True)]
        wide = list(torch._foreach_add(wide, decayed, alpha=group["weight_decay"]))
    torch._foreach_mul_(m, b1)
    torch._foreach_add_(m, wide, alpha=1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_maximum_(v, torch._foreach_abs(wide))
    norms = v if group["form"] == "torch" else [norm.clone() for norm in v]
    for norm in norms:
        norm.copy_(ap2(norm))
    if group["eps"]:
        torch._foreach_add_(norms, group["eps"])
    steps = list(torch._foreach_div(m, norms))
    if not group["eps"]:  # 0 / 0 where a weight has never had a gradient
        steps = [step.masked_fill_(norm == 0, 0.0) for step, norm in zip(steps, norms, strict=True)]
    torch._foreach_add_(parameters, [step.to(parameter.dtype) for step, parameter in zip(steps, parameters, strict=True)], alpha=-rate)
