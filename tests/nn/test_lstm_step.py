"""The native step of an LSTM against the same in PyTorch's operators, on every instruction set: values bit for bit, gradients to the last places."""

from __future__ import annotations

import math

import pytest
import torch

from lobit import _native
from lobit.nn.cells import Memory, lstm_backward
from lobit.nn.recurrence import Steps
from lobit.quantizers import fused


@pytest.fixture(params=_native.isas())
def isa(request, monkeypatch):
    monkeypatch.setattr(fused, "_best_isa", lambda: _native.isas().index(request.param))


def steps(batch, keep_nan):
    names = dict.fromkeys(Steps.__dataclass_fields__)
    names.update(kind="lstm", sizes=[batch], keep_nan=keep_nan)
    return Steps(**names)


def one(native, batch, units, kept, keep_nan, seed):
    generator = torch.Generator().manual_seed(seed)
    gates, sums = (torch.randn(batch, 4 * units, generator=generator) * 60 for _ in range(2))
    gates.view(-1)[:: 97 + units] = math.nan
    gates.view(-1)[1 :: 89 + units] = 127.5
    c = torch.randn(batch, units, generator=generator) * 3
    memory = Memory(steps(batch, keep_nan), gates, gates, batch, units, kept)
    memory.native = memory.native and native
    assert memory.native == native
    out = torch.empty(batch, units)
    memory.lstm(slice(0, batch), sums, c, out)
    return memory, c, out


@pytest.mark.parametrize("keep_nan", [True, False])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("batch", "units"), [(1, 1), (3, 7), (2, 255), (5, 256), (20, 257), (4, 650)])
def test_a_step_has_the_values_of_pytorchs_operators(isa, batch, units, kept, keep_nan):
    ours, theirs = (one(native, batch, units, kept, keep_nan, 3) for native in (True, False))
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    names = ["gates", "new", "inside", "new_inside", "cells"] if kept else ["gates"]
    for name in names:
        torch.testing.assert_close(getattr(ours[0], name), getattr(theirs[0], name), rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize(("batch", "units"), [(1, 1), (3, 7), (20, 257), (4, 650)])
def test_its_derivative_is_that_of_pytorchs_operators(isa, batch, units, monkeypatch):
    memory, *_ = one(True, batch, units, True, False, 5)
    dh, dc = torch.randn(batch, units), torch.randn(batch, units)
    found = []
    for native in (True, False):
        if not native:
            monkeypatch.setattr(fused, "steps_usable", lambda *tensors: False)
        d, out = dc.clone(), torch.empty(batch, 4 * units)
        lstm_backward(dh.clone(), d, memory.gates, memory.inside, memory.new, memory.new_inside, memory.cells, out)
        found.append((d, out))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
