"""Sums of recurrent layers: exact also where float32 would round them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lobit.nn import recurrent_quantizers
from lobit.nn.bptt import run
from lobit.nn.recurrence import Operands, Steps, walk
from tests.nn.test_recurrent import FAMILIES, KINDS, make, tensors


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


@torch.no_grad()
def digest():
    """SHA-256 of what layers give in eval, with parameters and steps set by hand: training's float statistics are no part of the promise."""
    sha, rng = hashlib.sha256(), np.random.default_rng(1)
    for kind in KINDS:
        for family in (FAMILIES[0], FAMILIES[1], FAMILIES[3]):
            layer = make(kind, family, 70, 90, num_layers=2, bidirectional=True)
            for name, parameter in layer.named_parameters():
                values = np.full(parameter.shape, 0.0725) if name.endswith("step") else rng.uniform(-0.25, 0.25, parameter.shape)
                parameter.copy_(torch.from_numpy(values.astype(np.float32)))
            x = torch.from_numpy(rng.normal(size=(6, 5, 70)).astype(np.float32))
            for part in tensors(layer.train().eval()(x)):
                sha.update(part.numpy().tobytes())
    return sha.hexdigest()


def test_other_vector_instructions_and_threads_give_the_same_bits():
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"}
    code = "from tests.nn.test_recurrent_sums import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == digest()
