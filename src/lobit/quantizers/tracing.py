"""What PyTorch does with tensors beside computing them: trace, transform, differentiate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def traced() -> bool:
    """Whether `torch.compile` traces, or a transformation of `torch.func` (``grad``, ``vmap``, ``jacrev``, ..) is at work.

    Values may not decide then, and only PyTorch's own operators may see the tensors: no native loop, no step that is one operation with a backward of its own.
    """
    return torch.compiler.is_compiling() or functional()


def functional() -> bool:
    """Whether a transformation of `torch.func` is at work, in which parameters may not be moved in place."""
    return torch._C._are_functorch_transforms_active()


def readable(state: Tensor) -> bool:
    """Whether a value may be read from a tensor now: not while a graph is traced, nor where it stands for those of several networks."""
    if torch.compiler.is_compiling():
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(state):
        if torch._C._functorch.is_batchedtensor(state):
            return False
        state = torch._C._functorch.get_unwrapped(state)
    return True


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether what is made of these tensors has a gradient: they record one, or tangents are carried forward, of which PyTorch says at each operation whether it can."""
    recorded = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return recorded or forward_ad._current_level >= 0
