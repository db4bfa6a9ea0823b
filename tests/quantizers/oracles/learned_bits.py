"""Learned widths: codes and the gradient in x for the step and clipping level that the quantizer holds; their own gradients are tested in test_learned_bits.py."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def learned(quantizer):
    """Step, and the least and the largest code."""
    step, top = (np.float64(p.detach().numpy()) for p in (quantizer.step, quantizer.top))
    n = np.rint(np.float32(top) / np.float32(step)).astype(np.float64)
    assert n <= quantizer.code_type.hi
    return step, -n if quantizer.code_type.alphabet == "signed" else 0.0, n


def rounded(quantizer, x):
    step, lo, n = learned(quantizer)
    return np.rint(np.clip(x / step, lo, n)), step


def in_range(quantizer, x, g):
    step, lo, n = learned(quantizer)
    return g * ((x / step >= lo) & (x / step <= n))


BITS = (2, 3, 4, 5, 6, 7, 8)
ROWS = [
    Row("learned_bits", "activations", BITS, rounded, in_range, symmetric=True),
    Row("learned_bits", "activations", BITS, rounded, in_range, settings={"nonnegative": True}),
    Row("learned_bits", "weights", BITS, rounded, in_range, symmetric=True),
]
