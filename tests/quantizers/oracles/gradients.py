"""Gradients as codes: deterministic forms by their formulas, random ones by their mean."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def largest(quantizer, g):
    sizes = np.abs(g.astype(np.float64))
    return sizes.max(1, keepdims=True) if quantizer.scale_per == "sample" else sizes.max()


def per(scale):
    return np.where(scale == 0, 1, scale)


def quotient(quantizer, g):
    """``g / m`` in float32, as gradients are computed: m has a part in it, so that no other arithmetic rounds to the same side."""
    return (g / per(largest(quantizer, g))).astype(np.float32)


def dorefa(quantizer, g):
    n = 2**quantizer.bits - 1
    v = (quotient(quantizer, g) + np.float32(1)) * np.float32(n / 2)
    return 2 * np.clip(np.rint(v), 0, n) - n, largest(quantizer, g) / n


def linear(quantizer, g):
    top = 2 ** (quantizer.bits - 1) - 1
    return np.rint(quotient(quantizer, g) * np.float32(top)), largest(quantizer, g) / top


def log(quantizer, g):
    top, m = 2 ** (quantizer.bits - 1) - 2, largest(quantizer, g)
    with np.errstate(divide="ignore"):
        scale = np.where(m == 0, 0, np.maximum(np.exp2(np.ceil(np.log2(m)) - top), 2.0**-126))
        power = np.sign(g) * np.exp2(np.rint(np.log2(np.abs(g / per(scale)))))
    return np.where(np.abs(power) < 1, 0, np.clip(power, -(2.0**top), 2.0**top)), scale


def itself(quantizer, g):
    return g


NEAREST = {"stochastic": False}
TENSOR = {"scale_per": "tensor", **NEAREST}
TRAINING_ALONE = "log2 codes have 2 to 4 bits"


def random(name, bits, refused=""):
    return Row(name, "gradients", bits, None, monotone=False, idempotent=False, mean=itself, refused=refused)


ROWS = [
    Row("dorefa", "gradients", (4, 6, 8), dorefa, settings=TENSOR),  # 0 is no code, and goes up
    Row("dorefa", "gradients", (5,), dorefa, settings=NEAREST, monotone=False),
    Row("linear", "gradients", (4, 6, 8), linear, settings=TENSOR, symmetric=True),
    Row("linear", "gradients", (5,), linear, settings=NEAREST, monotone=False, symmetric=True),
    # The largest value may round down, and then is another scale.
    Row("log", "gradients", (4,), log, settings=TENSOR, symmetric=True, idempotent=False),
    Row("log", "gradients", (5, 8), log, settings=NEAREST, monotone=False, symmetric=True, idempotent=False, refused=TRAINING_ALONE),
    random("dorefa", (2, 6)),
    random("linear", (2, 6)),
    random("log", (2, 4)),
    random("log", (6, 8), TRAINING_ALONE),
]
