"""LSQ+: codes and the gradient in x for the step and offset that the quantizer holds; their own gradients are tested in tests/nn/test_offset.py."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def of(quantizer, x):
    step, offset = (p.detach().double().numpy() for p in (quantizer.step, quantizer.offset))
    if quantizer.power_of_two:
        step = 2.0 ** np.rint(np.log2(step))
    return (x.astype(np.float64) - offset) / step, step, offset


def shifted(quantizer, x):
    v, step, offset = of(quantizer, x)
    return np.rint(np.clip(v, 0, 2**quantizer.bits - 1)), step, offset


def in_range(quantizer, x, g):
    v = of(quantizer, x)[0]
    return g * ((v >= 0) & (v <= 2**quantizer.bits - 1))


# x / step - offset / step is rounded three times, each to 2^-24 of a few units
ROWS = [
    Row("lsq_plus", "activations", tuple(range(1, 9)), shifted, in_range, slack=2e-6),
    Row("lsq_plus", "activations", (2, 8), shifted, in_range, {"power_of_two": True}, slack=2e-6),
]
