"""How close the one-bit products come to what the core can do, probed in the same process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.runtime import Session, probe_limit

REPETITIONS = 25
MIN_MACS = 1 << 20  # of one sample; smaller layers are all overhead


def one_bit_limit() -> float:
    """The core's limit in 10^9 one-bit multiply-accumulates a second: a loop of independent register operations, no memory."""
    return max(probe_limit("one-bit") for _ in range(3))


def one_bit_rates(session: Session, x: NDArray[np.float32], limit: float) -> list[dict[str, Any]]:
    """Rate of each layer whose weights and input have one bit; its thresholds are part of its time."""
    types = {row.name: row for row in session.explain().rows if row.types.startswith("odd1 x odd1") and row.macs >= MIN_MACS}
    return [
        {
            "layer": row.name,
            "kernel": row.kernel,
            "ms": round(row.seconds * 1e3, 4),
            "gmacs": round(row.gmacs_per_second, 1),
            "share": round(row.gmacs_per_second / limit, 4) if limit else 0.0,
        }
        for row in session.profile(x, repetitions=REPETITIONS).rows
        if row.name in types
    ]
