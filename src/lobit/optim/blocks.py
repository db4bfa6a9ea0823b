"""Lists of tensors in blocks that stay in a cache, so that the several passes of an update read memory once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lobit.errors import ConfigError

BLOCK = 1 << 15
"""Floats of one tensor in a block: with a gradient and two moments 512 KiB, about a core's second-level cache."""


def with_gradients(group: dict[str, Any], optimizer: Optimizer) -> list[Tensor]:
    """The parameters of a group that have a gradient.

    Raises
    ------
    ConfigError
        For a gradient that is sparse, or a parameter that is not of real numbers.
    """
    ready = [parameter for parameter in group["params"] if parameter.grad is not None]
    for parameter in ready:
        if parameter.grad.is_sparse or not parameter.is_floating_point():
            what = "a sparse gradient" if parameter.grad.is_sparse else f"a parameter of {parameter.dtype}"
            raise ConfigError(f"{type(optimizer).__name__} was given {what}; it takes dense real ones: give others to another optimizer")
    return ready


def blocks(*lists: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Parallel lists of tensors, in parallel lists of views.

    On the CPU each tensor is a flat piece of at most `BLOCK` numbers, several small ones together; elsewhere, and for tensors that do not lie in one piece, all
    go at once, as a launch there costs more than a pass.
    """
    whole: list[tuple[Tensor, ...]] = []
    small: list[tuple[Tensor, ...]] = []
    waiting = 0
    for tensors in zip(*lists, strict=True):
        if tensors[0].device.type != "cpu" or not all(tensor.is_contiguous() for tensor in tensors):
            whole.append(tensors)
        elif tensors[0].numel() >= BLOCK:
            for pieces in zip(*(tensor.view(-1).split(BLOCK) for tensor in tensors), strict=True):
                yield tuple([piece] for piece in pieces)
        else:
            small.append(tensors)
            waiting += tensors[0].numel()
            if waiting >= BLOCK:
                yield tuple(list(column) for column in zip(*small, strict=True))
                small, waiting = [], 0
    for left in (small, whole):
        if left:
            yield tuple(list(column) for column in zip(*left, strict=True))


def detached(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    """Tensors without their graph; all are there."""
    return [tensor.detach() for tensor in tensors if tensor is not None]


def like(parameter: Tensor) -> Tensor:
    """Zeros for a moment of a parameter; float32 for narrower ones, whose moments would vanish in their rounding."""
    dtype = torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype
    return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
