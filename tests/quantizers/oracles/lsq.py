"""LSQ: codes and the gradient in x for the step that the quantizer holds; the step's own gradient is tested in test_formulas.py."""

from __future__ import annotations

import numpy as np

from tests.quantizers.oracles.sign import clipped, sign
from tests.quantizers.rows import Row


def step_of(quantizer):
    step = quantizer.step.detach().double().numpy()
    return 2.0 ** np.rint(np.log2(step)) if quantizer.power_of_two else step


def learned(quantizer, x):
    code = quantizer.code_type
    return np.rint(np.clip(x / step_of(quantizer), code.lo, code.hi)), step_of(quantizer)


def in_range(quantizer, x, g):
    code, v = quantizer.code_type, x / step_of(quantizer)
    return g * ((v >= code.lo) & (v <= code.hi))


def signs(quantizer, w):
    return np.where(w >= 0, 1, -1), step_of(quantizer)


def in_one_step(quantizer, w, g):
    return g * (np.abs(w) <= step_of(quantizer))


BITS = (2, 3, 4, 5, 6, 7, 8)
ROWS = [
    Row("lsq", "activations", (1,), sign, clipped, symmetric=True),
    Row("lsq", "activations", BITS, learned, in_range),
    Row("lsq", "activations", (1, *BITS), learned, in_range, settings={"nonnegative": True}),
    Row("lsq", "weights", (1,), signs, in_one_step, symmetric=True),
    Row("lsq", "weights", BITS, learned, in_range),
    Row("lsq", "activations", (2, 8), learned, in_range, settings={"power_of_two": True}),
    Row("lsq", "weights", (2, 8), learned, in_range, settings={"power_of_two": True}),
    Row("lsq", "weights", (1,), signs, in_one_step, settings={"power_of_two": True}, symmetric=True),
]
