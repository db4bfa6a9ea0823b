"""One core to run on. What a measurement depends on stands in `lobit.report.machine`."""

from __future__ import annotations

import os

from lobit.report.machine import facts

__all__ = ["facts", "pin"]


def pin(core: int) -> None:
    """Run this process, and the threads that it starts later, on one core; call it before numeric libraries are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.sched_setaffinity(0, {core})
