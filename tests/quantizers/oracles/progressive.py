"""IR-Net's sign, whose gradient sharpens: the derivative of k f(t x), with k = max(1 / t, 1)."""

from __future__ import annotations

import numpy as np

from tests.quantizers.oracles.sign import sign
from tests.quantizers.rows import Row


def sharpness(quantizer):
    """10^a at the start, 10^b at the end, and 10^(a + p (b - a)) between."""
    a, b = np.log10(quantizer.first), np.log10(quantizer.last)
    return 10.0 ** (a + float(quantizer.progress) * (b - a))


def tanh(quantizer, x, g):
    t = sharpness(quantizer)
    return g * max(1 / t, 1) * t * (1 - np.tanh(t * x.astype(np.float64)) ** 2)


def hardtanh(quantizer, x, g):
    t = sharpness(quantizer)
    return g * max(1 / t, 1) * t * (np.abs(t * x.astype(np.float64)) <= 1)


ROWS = [
    Row("progressive_sign", role, (1,), sign, backward, settings, symmetric=True)
    for role in ("activations", "weights")
    for backward, settings in (
        (tanh, {}),
        (tanh, {"first": 3.0}),
        (hardtanh, {"shape": "hardtanh", "first": 0.7, "last": 20.0}),
    )
]
