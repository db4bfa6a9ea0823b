"""Ternary weight networks, and random ternary codes."""

from __future__ import annotations

import numpy as np

from tests.quantizers.oracles.sign import clipped, mean_of_stochastic
from tests.quantizers.oracles.sign import whole as unmasked
from tests.quantizers.rows import Row


def ternary(quantizer, w):
    magnitude, rows = np.abs(w.astype(np.float64)), {"axis": 1, "keepdims": True} if quantizer.per_channel else {}
    kept = magnitude > quantizer.threshold * magnitude.mean(**rows)
    scale = (magnitude * kept).sum(**rows) / np.maximum(kept.sum(**rows), 1)
    return np.sign(w) * kept, scale


def whole(quantizer, w, g):
    scale = ternary(quantizer, w)[1]
    return g * scale / np.maximum(scale, 2.0**-100)


def nearest(quantizer, x):
    return np.rint(np.clip(x, -1, 1)), 1.0


def random(role, backward):
    return Row("stochastic_ternary", role, (2,), nearest, backward, symmetric=True, eval_only_codes=True, mean=mean_of_stochastic)


ROWS = [
    Row("ternary", "weights", (2,), ternary, whole, symmetric=True),
    Row("ternary", "weights", (2,), ternary, whole, {"per_channel": False}, symmetric=True),
    Row("ternary", "weights", (2,), ternary, whole, {"threshold": 0.2}, symmetric=True),
    random("activations", clipped),
    random("weights", unmasked),
]
