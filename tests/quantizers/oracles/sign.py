"""One bit: signs with each of their gradients, and sign times the mean magnitude."""

from __future__ import annotations

import numpy as np

from tests.quantizers.rows import Row


def sign(quantizer, x):
    return np.where(x >= 0, 1, -1), 1.0


def mean_of_stochastic(quantizer, x):
    return np.clip(x, -1, 1)


def clipped(quantizer, x, g):
    return g * (np.abs(x) <= 1)


def whole(quantizer, x, g):
    return g


def approx(quantizer, x, g):
    """Bi-Real Net: 2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0."""
    x = x.astype(np.float64)
    return g * np.select([(x >= -1) & (x < 0), (x >= 0) & (x < 1)], [2 + 2 * x, 2 - 2 * x], 0.0)


def swish(quantizer, x, g):
    """BNN+: beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))."""
    z = np.clip(quantizer.beta * x.astype(np.float64), -300, 300)  # flat beyond
    return g * quantizer.beta * (2 - z * np.tanh(z / 2)) / (1 + np.cosh(z))


def magnitude_sign(quantizer, w):
    return np.where(w >= 0, 1, -1), np.abs(w.astype(np.float64)).mean(1, keepdims=True)


def whole_of_scaled(quantizer, w, g):
    """The scale cancels, but where it is 0 or nearly."""
    scale = magnitude_sign(quantizer, w)[1]
    return g * scale / np.maximum(scale, 2.0**-100)


def xnor(quantizer, w, g):
    """XNOR-Net: 1 / n + scale * 1[|w| <= 1]; a channel of zeros has none."""
    scale = magnitude_sign(quantizer, w)[1]
    return g * (scale / np.maximum(scale, 2.0**-100) / w.shape[1] + scale * (np.abs(w) <= 1))


def rsign(quantizer, x):
    shift = quantizer.shift.detach().double().numpy()
    return np.where(x >= shift, 1, -1), 1.0


def of_shifted(gradient):
    return lambda quantizer, x, g: gradient(quantizer, x - quantizer.shift.detach().double().numpy(), g)


def signs(name, role, backward, **settings):
    return Row(name, role, (1,), sign, backward, settings, symmetric=True)


ROWS = [
    signs("sign", "activations", clipped),
    signs("sign", "activations", whole, gradient="identity"),
    signs("sign", "activations", approx, gradient="approx"),
    signs("sign", "activations", swish, gradient="swish", beta=3.0),
    signs("identity_sign", "activations", whole),
    signs("approx_sign", "activations", approx),
    signs("swish_sign", "activations", swish),
    Row("stochastic_sign", "activations", (1,), sign, clipped, symmetric=True, eval_only_codes=True, mean=mean_of_stochastic),
    Row("rsign", "activations", (1,), rsign, of_shifted(approx), symmetric=True),
    Row("rsign", "activations", (1,), rsign, of_shifted(swish), {"gradient": "swish"}, symmetric=True),
    signs("sign", "weights", whole),
    signs("sign", "weights", clipped, gradient="clipped"),
    signs("approx_sign", "weights", approx),
    signs("swish_sign", "weights", swish),
    Row("stochastic_sign", "weights", (1,), sign, whole, symmetric=True, eval_only_codes=True, mean=mean_of_stochastic),
    Row("magnitude_sign", "weights", (1,), magnitude_sign, whole_of_scaled, symmetric=True),
    Row("magnitude_sign", "weights", (1,), magnitude_sign, xnor, {"gradient": "xnor"}, symmetric=True),
]
