"""An independent oracle of a quantized sequential net in eval, from the formulas: float32 numpy steps, sums in 64-bit integers.

It reads the modules' parameters and buffers, and calls none of their forwards.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q


def nearest_powers(v, code):
    """Codes of `log2`, by mantissas in [1/2, 1) that are compared with half the float32 sqrt(2)."""
    mantissa, exponent = np.frexp(np.abs(v).astype(np.float32))
    exponent = exponent - 1 + (mantissa >= np.sqrt(np.float32(2)) / 2)
    top = 2 ** (code.bits - 1) - 2
    return np.where((v == 0) | (exponent < 0), 0, np.sign(v) * np.exp2(np.minimum(exponent, top)))


def activation_codes(quantizer, x):
    if isinstance(quantizer, Q.RSign):
        return np.where(x - quantizer.shift.detach().numpy() >= 0, 1, -1), np.float32(1)
    if isinstance(quantizer, Q.LogQuant):
        scale = np.float32(2.0 ** (quantizer.top - (2 ** (quantizer.bits - 1) - 2 if quantizer.bits > 1 else 0)))
        return (np.where(x >= 0, 1, -1) if quantizer.bits == 1 else nearest_powers(x / scale, quantizer.code_type)), scale
    if isinstance(quantizer, Q.Sign) or str(quantizer.code_type) == "odd1":
        return np.where(x >= 0, 1, -1), np.float32(1)
    code = quantizer.code_type
    if isinstance(quantizer, Q.LSQ):
        step = quantizer.step.detach().numpy()
        return np.rint(np.clip(x / step, code.lo, code.hi)), step
    if isinstance(quantizer, Q.LinearQuant):
        step = np.float32(2.0 ** (1 - quantizer.bits))
        return np.rint(np.clip(x / step, code.lo, code.hi)), step
    if isinstance(quantizer, Q.DoReFaActivations):
        n = np.float32(2**quantizer.bits - 1)
        return np.rint(np.clip(x, 0, 1).astype(np.float32) * n), np.float32(1 / float(n))
    raise TypeError(quantizer)


def weight_codes(quantizer, w):
    channels = (-1, *[1] * (w.ndim - 1))
    code = quantizer.code_type
    if isinstance(quantizer, Q.SignWeights) or (isinstance(quantizer, Q.LinearQuantWeights) and quantizer.bits == 1):
        return np.where(w >= 0, 1, -1), np.float32(1)
    if isinstance(quantizer, Q.TernaryWeights):
        magnitude = np.abs(w.astype(np.float64)).reshape(len(w), -1)
        kept = magnitude > 0.7 * magnitude.mean(1, keepdims=True)
        scale = (magnitude * kept).sum(1) / np.maximum(kept.sum(1), 1)
        return np.sign(w) * kept.reshape(w.shape), scale.astype(np.float32).reshape(channels)
    if isinstance(quantizer, Q.LogQuantWeights):
        if quantizer.top is None:
            mantissa, exponent = np.frexp(np.abs(w).reshape(len(w), -1).max(1).astype(np.float32))
            span = np.exp2(exponent - 1.0 + (mantissa >= np.sqrt(np.float32(2)) / 2)).astype(np.float32).reshape(channels)
        else:
            span = np.float32(2.0**quantizer.top)
        if quantizer.bits == 1:
            return np.where(w >= 0, 1, -1), span
        scale = span / np.float32(2.0 ** (2 ** (quantizer.bits - 1) - 2))
        return nearest_powers(w / scale, code), scale
    if isinstance(quantizer, Q.MagnitudeSign):
        return np.where(w >= 0, 1, -1), np.abs(w.astype(np.float64)).reshape(len(w), -1).mean(1).astype(np.float32).reshape(channels)
    if isinstance(quantizer, Q.LSQWeights):
        step = quantizer.step.detach().numpy()
        return np.rint(np.clip(w / step, code.lo, code.hi)), step
    if isinstance(quantizer, Q.LinearQuantWeights):
        step = np.float32(2.0 ** (1 - quantizer.bits))
        return np.rint(np.clip(w / step, code.lo, code.hi)), step
    if isinstance(quantizer, Q.DoReFaWeights):
        if quantizer.bits == 1:
            return np.where(w >= 0, 1, -1), np.float32(np.abs(w.astype(np.float64)).mean())
        n, t = 2**quantizer.bits - 1, np.tanh(w.astype(np.float64))
        return 2 * np.rint(n * (t / (2 * np.abs(t).max()) + 0.5)) - n, np.float32(1 / n)
    raise TypeError(quantizer)


def product(layer, x, recorded, path):
    cx, sx = activation_codes(layer.input_quantizer, x)
    cw, sw = weight_codes(layer.weight_quantizer, layer.weight.detach().numpy())
    recorded[path] = cx.astype(np.int64)
    a, b = torch.tensor(np.asarray(cx, np.float64)), torch.tensor(np.asarray(cw, np.float64))
    if isinstance(layer, nn.Conv2d):
        sums = F.conv2d(a, b, None, layer.stride, layer.padding, layer.dilation, layer.groups).numpy()
    else:
        sums = (a @ b.T).numpy()
    assert np.array_equal(sums, np.rint(sums))
    assert np.abs(sums).max(initial=0) < 2**53
    shape = (-1, 1, 1) if sums.ndim == 4 else (-1,)
    scale = (np.float32(1) * sx * sw).astype(np.float32).reshape(-1)
    y = sums.astype(np.int64).astype(np.float32) * scale.reshape(shape)
    return y if layer.bias is None else y + layer.bias.detach().numpy().reshape(shape)


def pooled(x, kernel, stride, pad, reduce, fill):
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=fill)
    rows, cols = (x.shape[2] - kernel) // stride + 1, (x.shape[3] - kernel) // stride + 1
    total = None
    for i in range(kernel):
        for j in range(kernel):
            tap = x[:, :, i : i + (rows - 1) * stride + 1 : stride, j : j + (cols - 1) * stride + 1 : stride]
            total = tap if total is None else reduce(total, tap)
    return total


def run(model, x):
    """Output of a net of modules in a row, and the input codes of each quantized layer by path."""
    recorded = {}
    return _run(model, np.asarray(x, np.float32), recorded, ""), recorded


def _run(module, x, recorded, path):
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            x = _run(child, x, recorded, f"{path}.{name}" if path else name)
        return x
    if isinstance(module, Residual):
        return _run(module.body, x, recorded, f"{path}.body") + x
    if isinstance(module, lnn.QuantizedLayer):
        return product(module, x, recorded, path)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        w, b, m, v = (t.detach().double().numpy() for t in (module.weight, module.bias, module.running_mean, module.running_var))
        a = w / np.sqrt(v + module.eps)
        shape = (-1, *[1] * (x.ndim - 2))
        return x * a.astype(np.float32).reshape(shape) + (b - m * a).astype(np.float32).reshape(shape)
    if isinstance(module, nn.ReLU):
        return np.maximum(x, np.float32(0))
    if isinstance(module, nn.Hardtanh):
        return np.clip(x, np.float32(-1), np.float32(1))
    if isinstance(module, nn.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(module, nn.MaxPool2d):
        return pooled(x, module.kernel_size, module.stride, module.padding, np.maximum, -np.inf)
    if isinstance(module, nn.AvgPool2d):
        return pooled(x, module.kernel_size, module.stride, module.padding, np.add, 0) / np.float32(module.kernel_size**2)
    raise TypeError(module)


class Residual(nn.Module):
    """``body(x) + x``."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x) + x
