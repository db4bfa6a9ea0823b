"""Several optimizers as one: one step, one state, one list of groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim import Optimizer

from lobit.errors import ConfigError


class CombinedOptimizer(Optimizer):
    """Optimizers of different parameters, used like one.

    ``param_groups`` are the groups of all, in order, and ``state`` is one mapping that all share, so that schedules of the rate, ``zero_grad``, gradient
    scalers and ``state_dict`` see one optimizer; the state has torch's own form. The parts must not be used apart from it any more.

    Parameters
    ----------
    *optimizers : torch.optim.Optimizer
        Two or more, none twice, that have no parameter in common.

    Attributes
    ----------
    optimizers : tuple of torch.optim.Optimizer

    Raises
    ------
    ConfigError
        When a parameter belongs to two of them, or there are fewer than two.

    Examples
    --------
    >>> a, b = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    >>> both = CombinedOptimizer(torch.optim.SGD([a], lr=0.1), torch.optim.Adam([b], lr=0.01))
    >>> [group["lr"] for group in both.param_groups]
    [0.1, 0.01]
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        if len(optimizers) < 2 or not all(isinstance(optimizer, Optimizer) for optimizer in optimizers):
            kinds = ", ".join(type(optimizer).__name__ for optimizer in optimizers) or "nothing"
            raise ConfigError(f"CombinedOptimizer takes two or more optimizers, not {kinds}")
        seen: set[int] = set()
        for optimizer in optimizers:
            own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            if own & seen:
                raise ConfigError(
                    f"{type(optimizer).__name__} has {len(own & seen)} parameters that an optimizer before it has; give each to one: "
                    "lobit.optim.groups_by makes groups that exclude each other"
                )
            seen |= own
        self.optimizers: tuple[Optimizer, ...] = ()
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = optimizers
        for optimizer in optimizers:
            self.state.update(optimizer.state)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of each; ``closure``, if given, computes loss and gradients once, first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # of a copy, of a pickle, or of a state_dict that is loaded, which has no parts
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once made: it would not say whose the group is."""
        if self.optimizers:
            raise ConfigError("a CombinedOptimizer takes no more groups; add them to one of its parts before they are combined")
        super().add_param_group(param_group)

    def _share(self) -> None:
        """Hand groups and state, which loading and copying make anew, to the parts."""
        start = 0
        for optimizer in self.optimizers:
            end = start + len(optimizer.param_groups)
            optimizer.__setstate__(
                {"state": self.state, "param_groups": self.param_groups[start:end]}
            )  # also brings older states up to date
            start = end
