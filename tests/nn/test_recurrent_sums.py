"""Sums of recurrent layers: exact also where float32 would round them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lobit.nn import recurrent_quantizers
from lobit.nn.bptt import run
from lobit.nn.recurrence import Operands, Steps, walk
from tests.nn.test_recurrent import KINDS


@pytest.mark.parametrize("path", [run, lambda *given: walk(*given)])
@torch.no_grad()
def test_long_sums_of_eight_bits_are_exact_beyond_float32(path):
    """Sums of 3000 codes near 2^25, taken to the grid so that a few units more or less are another code."""
    length, rows = 3000, 8
    generator = np.random.default_rng(0)
    x, h = (generator.integers(120, 128, (rows, length)) for _ in range(2))
    w = generator.integers(100, 128, (length, length))
    sums = {name: (codes @ w.T).astype(np.float32) for name, codes in (("x", x), ("h", h))}
    bias = -np.float32(0.25) * (sums["x"][0] + sums["h"][0])
    expected = np.tanh(np.rint(np.clip((sums["x"] * np.float32(0.25) + bias) + sums["h"] * np.float32(0.25), -8, 127 / 16) * 16) / 16)
    given = [torch.tensor(part, dtype=torch.float32) for part in (x, w, h, bias)]
    scale = torch.tensor([0.25])
    results = []
    for in_float64 in (True, False):
        steps = Steps("tanh", (rows,), wide_inputs=in_float64, wide_hidden=in_float64)
        results.append(path(steps, Operands(given[0], given[1], scale, given[1], scale, None, given[3], None, given[2], None), None).hidden)
    np.testing.assert_allclose(results[0].numpy(), expected, rtol=0, atol=1e-7)
    assert not torch.equal(*results)  # float32 sums would be others


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inputs", "units", "wide"), [(520, 1100, (False, True)), (1100, 4, (True, False)), (500, 500, (False, False))])
def test_sums_are_formed_in_float64_where_their_bound_passes_two_to_the_24(kind, inputs, units, wide, monkeypatch):
    cls, _, extra = KINDS[kind]
    eight = {"name": "lsq", "bits": 8, "nonnegative": False}
    layer = cls(inputs, units, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer=eight, hidden_quantizer=eight, **extra)
    x = torch.randn(1, 2, inputs)
    layer(x)
    seen = []
    monkeypatch.setattr(recurrent_quantizers, "run", lambda steps, *given: seen.append(steps) or run(steps, *given))
    with torch.no_grad():
        layer(x)
        layer.eval()(x)
    assert [(steps.wide_inputs, steps.wide_hidden) for steps in seen] == [(False, False), wide]
