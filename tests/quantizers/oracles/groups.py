"""Scales for groups of inputs: the quantizer's own oracle, called for each group of each output by itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tests.quantizers.oracles import affine, lsq, sign, ternary
from tests.quantizers.rows import Row

GROUP, COLUMNS = 8, 20  # two whole groups and one of four


def alone(quantizer, output, start):
    """The quantizer that one group of one output would have."""
    whole = start + GROUP <= COLUMNS
    inner = quantizer.quantizer if whole else quantizer.rest
    settings = {
        name: getattr(inner, name) for name in ("bits", "threshold", "per_channel", "code_type", "power_of_two") if hasattr(inner, name)
    }
    if hasattr(inner, "step"):
        row = output * (COLUMNS // GROUP) + start // GROUP if whole else output
        settings["step"] = inner.step[row : row + 1]
    return SimpleNamespace(**settings)


def each(function):
    """An oracle of an output channel, group by group; what it gives has the shape of the weights."""

    def of_all(quantizer, w, *g):
        made = None
        for output in range(len(w)):
            for start in range(0, w.shape[1], GROUP):
                place = (slice(output, output + 1), slice(start, start + GROUP))
                found = function(alone(quantizer, output, start), w[place], *(part[place] for part in g))
                parts = found if isinstance(found, tuple) else (found,)
                made = made or [np.zeros(w.shape) for _ in parts]
                for whole, part in zip(made, parts, strict=True):
                    whole[place] = part
        return made[0] if g else tuple(made)

    return of_all


def row(name, bits, forward, backward, more=(), **settings):
    refused = "scales for groups of 8 inputs"
    return Row(
        name,
        "weights",
        bits,
        each(forward),
        each(backward),
        {"group": GROUP, **dict(more)},
        monotone=False,
        refused=refused,
        columns=COLUMNS,
        **settings,
    )


ROWS = [
    row("lsq", (1,), lsq.signs, lsq.in_one_step, symmetric=True),
    row("lsq", (2, 4, 8), lsq.learned, lsq.in_range),
    row("lsq", (2, 8), lsq.learned, lsq.in_range, {"power_of_two": True}),
    row("affine", (2, 4, 8), affine.symmetric, affine.whole),
    row("magnitude_sign", (1,), sign.magnitude_sign, sign.whole_of_scaled, symmetric=True),
    row("ternary", (2,), ternary.ternary, ternary.whole, symmetric=True),
]
