"""Ternary weight networks."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def ternary(quantizer, w):
    magnitude, rows = np.abs(w.astype(np.float64)), {"axis": 1, "keepdims": True} if quantizer.per_channel else {}
    kept = magnitude > quantizer.threshold * magnitude.mean(**rows)
    scale = (magnitude * kept).sum(**rows) / np.maximum(kept.sum(**rows), 1)
    return np.sign(w) * kept, scale


def whole(quantizer, w, g):
    scale = ternary(quantizer, w)[1]
    return g * scale / np.maximum(scale, 2.0**-100)


ROWS = [
    Row("ternary", "weights", (2,), ternary, whole, symmetric=True),
    Row("ternary", "weights", (2,), ternary, whole, {"per_channel": False}, symmetric=True),
    Row("ternary", "weights", (2,), ternary, whole, {"threshold": 0.2}, symmetric=True),
]
