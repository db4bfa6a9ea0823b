"""One bit: sign, stochastic sign, sign times the mean magnitude."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def sign(quantizer, x):
    return np.where(x >= 0, 1, -1), 1.0


def magnitude_sign(quantizer, w):
    return np.where(w >= 0, 1, -1), np.abs(w.astype(np.float64)).mean(1, keepdims=True)


def clipped(quantizer, x, g):
    return g * (np.abs(x) <= 1)


def whole(quantizer, x, g):
    return g


def whole_of_scaled(quantizer, w, g):
    """The scale cancels, but where it is 0 or nearly."""
    scale = magnitude_sign(quantizer, w)[1]
    return g * scale / np.maximum(scale, 2.0**-100)


def mean_of_clipped(quantizer, x):
    return np.clip(x, -1, 1)


ROWS = [
    Row("sign", "activations", (1,), sign, clipped, symmetric=True),
    Row("stochastic_sign", "activations", (1,), sign, clipped, symmetric=True, eval_only_codes=True, mean=mean_of_clipped),
    Row("sign", "weights", (1,), sign, whole, symmetric=True),
    Row("magnitude_sign", "weights", (1,), magnitude_sign, whole_of_scaled, symmetric=True),
]
