"""Trained ternary quantization; the gradients of its scales are tested in test_ttq.py."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def scales(quantizer):
    return (p.detach().double().numpy() for p in (quantizer.positive, quantizer.negative))


def codes_of(quantizer, w):
    """The bound as float32 has it: both sides of a tie are the same weight."""
    magnitude = np.abs(w.astype(np.float32))
    largest = magnitude.max(**({"axis": 1, "keepdims": True} if quantizer.per_channel else {}))
    return np.sign(w) * (magnitude > np.float32(quantizer.threshold) * largest)


def ttq(quantizer, w):
    """What codes -1 have beyond the common scale stands as an offset of theirs."""
    codes, (positive, negative) = codes_of(quantizer, w), scales(quantizer)
    return codes, positive, (positive - negative) * (codes < 0)


def scaled(quantizer, w, g):
    """Equation 8."""
    codes, (positive, negative) = codes_of(quantizer, w), scales(quantizer)
    return g * np.select([codes > 0, codes < 0], [np.broadcast_to(positive, w.shape), np.broadcast_to(negative, w.shape)], 1.0)


ROWS = [
    Row("ttq", "weights", (2,), ttq, scaled, rounding=0.0),
    Row("ttq", "weights", (2,), ttq, scaled, {"per_channel": True}, rounding=0.0),
    Row("ttq", "weights", (2,), ttq, scaled, {"threshold": 0.3}, rounding=0.0),
]
