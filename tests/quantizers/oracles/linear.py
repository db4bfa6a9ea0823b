"""LinearQuant."""

from __future__ import annotations

import numpy as np

from tests.quantizers.oracles.sign import clipped, sign, whole
from tests.quantizers.rows import Row


def linear(quantizer, x):
    half = 2 ** (quantizer.bits - 1)
    return np.rint(np.clip(x.astype(np.float64) * half, -half, half - 1)), 1 / half


def in_range(quantizer, x, g):
    step = 2.0 ** (1 - quantizer.bits)
    return g * ((x >= -1) & (x <= 1 - step))


ROWS = [
    Row("linear", "activations", (1,), sign, clipped, symmetric=True),
    Row("linear", "weights", (1,), sign, whole, symmetric=True),
    Row("linear", "activations", (2, 3, 4, 5, 6, 7, 8), linear, in_range),
    Row("linear", "weights", (2, 3, 4, 5, 6, 7, 8), linear, whole),
]
