"""PACT; the gradient of its level is tested in test_pact.py."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def level(quantizer):
    alpha, n = quantizer.alpha.detach().double().numpy(), 2**quantizer.bits - 1
    return 2.0 ** np.rint(np.log2(alpha / n)) * n if quantizer.power_of_two else alpha


def clipped(quantizer, x):
    n, alpha = 2**quantizer.bits - 1, level(quantizer)
    return np.rint(np.clip(x.astype(np.float64), 0, alpha) * n / alpha), alpha / n


def below_the_level(quantizer, x, g):
    return g * ((x >= 0) & (x < level(quantizer)))


# The gradient at alpha itself, and one bit less: the comparison is exact, so nothing near it will do
ROWS = [
    Row("pact", "activations", tuple(range(1, 9)), clipped, below_the_level, settings={"alpha": 1.0}),
    Row("pact", "activations", (2, 8), clipped, below_the_level, settings={"alpha": 1.1, "power_of_two": True}),
]
