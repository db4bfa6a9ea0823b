"""An independent oracle of quantized recurrent layers in eval: float32 numpy operations one by one, sums in 64-bit integers, one sequence at a time.

It reads parameters and settings, and calls no forward of lobit.
"""

from __future__ import annotations

import math

import numpy as np

from tests.capture.oracle import activation_codes, weight_codes

F32 = np.float32


def grid(x):
    return np.rint(np.clip(x * F32(16), F32(-128), F32(127)))


def sigmoid(x):
    return np.array([F32(1 / (1 + math.exp(-float(code) / 16))) for code in grid(x)], F32)


def tanh(x):
    return np.array([F32(math.tanh(float(code) / 16)) for code in grid(x)], F32)


def relu(x):
    return np.maximum(grid(x), 0).astype(F32) / F32(16)


def scaled_sum(codes, scale_x, weights):
    codes_w, scale_w = weights
    sums = codes_w.astype(np.int64) @ codes.astype(np.int64)
    return sums.astype(F32) * (F32(1) * scale_x * scale_w).astype(F32).reshape(-1)


def direction(layer, suffix, source, xs, h, c, reverse):
    """States of one sequence of shape (T, I), one step after the other."""
    kind = layer.kind
    weights = {
        side: weight_codes(layer.weight_quantizers[f"weight_{side}{suffix}"], getattr(layer, f"weight_{side}{suffix}").detach().numpy())
        for side in ("ih", "hh")
    }
    biases = [getattr(layer, f"bias_{side}{suffix}", None) for side in ("ih", "hh")]
    b_ih, b_hh = (np.zeros(len(weights["ih"][0]), F32) if bias is None else bias.detach().numpy() for bias in biases)
    units = len(h)
    new = slice(2 * units, None)
    outputs = [None] * len(xs)
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        a = scaled_sum(*activation_codes(layer.input_quantizers[source], xs[t]), weights["ih"])
        b = scaled_sum(*activation_codes(layer.hidden_quantizers[f"hidden{suffix}"], h), weights["hh"])
        if kind == "gru":
            gates = sigmoid((a + (b_ih + b_hh))[: 2 * units] + b[: 2 * units])
            r, z = gates[:units], gates[units:]
            n = tanh((a + b_ih)[new] + r * (b + b_hh)[new])
            h = (h - n) * z + n
        elif kind == "lstm":
            i, f, g, o = np.split((a + (b_ih + b_hh)) + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
        else:
            h = (tanh if kind == "tanh" else relu)((a + (b_ih + b_hh)) + b)
        assert h.dtype == np.float32
        outputs[t] = h
    return np.stack(outputs), h, c


def layers(layer, xs, h0=None, c0=None):
    """Outputs (T, directions * H) of one sequence of shape (T, I), and the last states (layers * directions, H)."""
    ends = ("", "_reverse") if layer.bidirectional else ("",)
    h_n, c_n, at = [], [], 0
    for number in range(layer.num_layers):
        outputs = []
        for reverse, end in enumerate(ends):
            zeros = np.zeros(layer.hidden_size, F32)
            h, c = (zeros if state is None else state[at] for state in (h0, c0))
            y, h, c = direction(layer, f"_l{number}{end}", f"input_l{number}", xs, h, c, bool(reverse))
            outputs.append(y)
            h_n.append(h)
            c_n.append(c)
            at += 1
        xs = np.concatenate(outputs, 1)
    return xs, np.stack(h_n), np.stack(c_n)
