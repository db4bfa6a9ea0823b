"""Affine quantizers: activations for the scale and zero that they hold, weights for the range that follows them."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def ends(quantizer):
    """Of the codes less their zero."""
    unsigned = quantizer.code_type.alphabet == "unsigned"
    lo, hi = (0, 2**quantizer.bits - 1) if unsigned else (-(2 ** (quantizer.bits - 1)), 2 ** (quantizer.bits - 1) - 1)
    zero = int(quantizer.zero_point)
    return lo - zero, hi - zero, zero


def activations(quantizer, x):
    lo, hi, zero = ends(quantizer)
    scale = float(quantizer.scale)
    return np.rint(np.clip(x.astype(np.float64) / scale, lo, hi)) + zero, scale


def in_range(quantizer, x, g):
    lo, hi, _ = ends(quantizer)
    v = x.astype(np.float64) / float(quantizer.scale)
    return g * ((v >= lo) & (v <= hi))


def bounds(quantizer, w):
    w = w.astype(np.float64)
    axes = {"axis": 1, "keepdims": True} if quantizer.per_channel else {}
    return w, w.min(**axes), w.max(**axes)


def quotient(quantizer, w, scale):
    """Scale and quotient as float32 has them: a scale that follows the weights makes ties of them, which no neighbour of the weights would break."""
    scale = np.maximum(scale, 2.0**-30)
    scale = np.float32(2.0 ** np.ceil(np.log2(scale)) if quantizer.power_of_two else scale)
    return np.rint(w.astype(np.float32) / scale), scale


def symmetric(quantizer, w):
    w, low, high = bounds(quantizer, w)
    most = 2 ** (quantizer.bits - 1)
    codes, scale = quotient(quantizer, w, np.maximum(high / (most - 1), -low / most))
    return np.clip(codes, -most, most - 1), scale


def centred(quantizer, w):
    w, low, high = bounds(quantizer, w)
    n, low, high = 2**quantizer.bits - 1, np.minimum(low, 0), np.maximum(high, 0)
    zero = np.clip(np.rint(-low / np.maximum((high - low) / n, 2.0**-30)), 0, n)
    codes, scale = quotient(quantizer, w, (high - low) / n)
    return np.clip(codes, -zero, n - zero), scale


def whole(quantizer, w, g):
    return g


ROWS = [
    Row("affine", "activations", tuple(range(1, 9)), activations, in_range),
    Row("affine", "activations", (2, 8), activations, in_range, settings={"signed": True}),
    Row("affine", "activations", (2, 4, 8), activations, in_range, settings={"symmetric": True}),
    Row("affine", "activations", (2, 8), activations, in_range, settings={"power_of_two": True}),
    Row("affine", "weights", tuple(range(2, 9)), symmetric, whole),
    Row("affine", "weights", (2, 4, 8), symmetric, whole, settings={"per_channel": False}),
    Row("affine", "weights", (2, 8), symmetric, whole, settings={"power_of_two": True}),
    Row("affine", "weights", (2, 7), centred, whole, settings={"symmetric": False, "power_of_two": True}),
    # one bit that covers all weights leaves most of them 0: it learns only from a calibrated range, see test_affine.py
    Row("affine", "weights", tuple(range(2, 8)), centred, whole, settings={"symmetric": False}),
    Row("affine", "weights", (2, 4, 7), centred, whole, settings={"symmetric": False, "per_channel": False}),
]
