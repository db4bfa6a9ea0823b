"""LogQuant: AP2 by a logarithm in float64, rounded."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def ap2(x):
    """``rint(log2)`` turns at the sqrt(2) of float64; inputs of float32 that are its own sqrt(2) are in test_powers.py."""
    magnitude = np.abs(x.astype(np.float64))
    with np.errstate(divide="ignore"):
        return np.sign(x) * np.exp2(np.rint(np.log2(magnitude)))


def span_of(quantizer, x):
    return 2.0**quantizer.top if quantizer.top is not None else np.maximum(np.abs(ap2(x)).max(1, keepdims=True), 2.0**-100)


def one_bit(quantizer, x):
    return np.where(x >= 0, 1, -1), span_of(quantizer, x)


def log(quantizer, x):
    """In units of the smallest level up to four bits, else of the largest."""
    span, exponents = span_of(quantizer, x), 2 ** (quantizer.bits - 1) - 2
    value = np.clip(ap2(x), -span, span)
    value = np.where(np.abs(value) < span * 2.0**-exponents, 0, value)
    unit = span * 2.0**-exponents if quantizer.bits <= 4 else span
    return value / unit, unit


def in_span(quantizer, x, g):
    return g * (np.abs(x) <= span_of(quantizer, x))


def whole(quantizer, x, g):
    return g


NARROW, WIDE = (2, 3, 4), (5, 6, 7, 8)
TRAINING_ALONE = "for training alone"
ROWS = [
    Row("log", "activations", (1,), one_bit, in_span, symmetric=True),
    Row("log", "activations", NARROW, log, in_span, symmetric=True),
    Row("log", "activations", (3, 4), log, in_span, {"top": 1}, symmetric=True),
    Row("log", "activations", WIDE, log, in_span, {"top": -1}, symmetric=True, refused=TRAINING_ALONE),
    Row("log", "weights", (1,), one_bit, whole, symmetric=True),
    Row("log", "weights", NARROW, log, whole, symmetric=True),
    Row("log", "weights", (1,), one_bit, whole, {"top": None}, symmetric=True),
    Row("log", "weights", NARROW, log, whole, {"top": None}, symmetric=True),
    Row("log", "weights", WIDE, log, whole, {"top": -2}, symmetric=True, refused=TRAINING_ALONE),
]
