"""The unit step: codes 0 and 1."""

from __future__ import annotations

import numpy as np

from tests.quantizers.oracles.sign import clipped, whole
from tests.quantizers.rows import Row


def step(quantizer, x):
    return np.where(x > 0, 1, 0), 1.0


ROWS = [
    Row("heaviside", "activations", (1,), step, clipped),
    Row("heaviside", "weights", (1,), step, whole),
]
