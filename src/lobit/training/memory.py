"""Memory between steps: kept, where the C library would give it back and fetch it anew."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next tensors.

    By default glibc maps every block beyond 32 MiB anew and unmaps it when it is freed, so each large tensor of each step begins with page faults: of the
    CIFAR-10 ConvNet's step in float32 they took 9 % in PyTorch, and more in lobit (`python -m benchmarks.training`, with and without ``--keep-memory``). The process does not give memory
    back to the system until it ends; its peak stays what it was. `lobit train` does this; call it at the start of a training program of your own.

    Returns
    -------
    bool
        Whether the C library took the setting; other libraries than glibc have none, and nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
