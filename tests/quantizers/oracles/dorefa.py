"""DoReFa-Net."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def activations(quantizer, x):
    n = 2**quantizer.bits - 1
    return np.rint(n * np.clip(x.astype(np.float64), 0, 1)), 1 / n


def in_unit(quantizer, x, g):
    return g * ((x >= 0) & (x <= 1))


def one_bit(quantizer, w):
    return np.where(w >= 0, 1, -1), np.abs(w.astype(np.float64)).mean()


def whole(quantizer, w, g):
    scale = one_bit(quantizer, w)[1]
    return g * scale / max(scale, 2.0**-100)


def weights(quantizer, w):
    n, t = 2**quantizer.bits - 1, np.tanh(w.astype(np.float64))
    return 2 * np.rint(n * (t / max(2 * np.abs(t).max(), 1e-30) + 0.5)) - n, 1 / n


def of_tanh(quantizer, w, g):
    """The derivative of ``tanh w / max|tanh w|``; the largest magnitude has one, shared by all that have it."""
    t = np.tanh(w.astype(np.float64))
    most = np.abs(t).max()
    if 2 * most < 1e-30:
        return 2e30 * g  # the guard against 0 / 0
    largest = np.abs(t) >= most * (1 - 3e-8)  # equal in float32
    d = g / most - np.sign(t) * largest / largest.sum() * (g * t).sum() / most**2
    return d * (1 - t**2)


BITS = (2, 3, 4, 5, 6, 7, 8)
ROWS = [
    Row("dorefa", "activations", (1, *BITS), activations, in_unit),
    Row("dorefa", "weights", (1,), one_bit, whole, symmetric=True),
    # In training the hyperbolic tangent is float32's. Its own values are other weights, with other tanhs.
    Row("dorefa", "weights", BITS, weights, of_tanh, symmetric=True, idempotent=False, eval_only_codes=True, tolerance=2e-4),
]
