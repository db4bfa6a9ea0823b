"""The promise: the packed network's codes are those of PyTorch's eval model and of an oracle written from the formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.runtime import Session, isas, load
from tests.capture import oracle
from tests.capture.nets import nets, settle

SEED = st.integers(0, 2**31 - 1)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=nets(), seed=SEED)
def test_random_nets_equal_pytorch_and_the_oracle(net, seed, tmp_path_factory):
    model, shape = net
    settle(model, shape, seed)
    x = torch.randn(9, *shape) * 2
    graph = capture(model, (x,)).graph
    with np.errstate(all="ignore"):
        expected, codes = oracle.run(model, x.numpy())
    sessions = [Session(graph, isa=isa, threads=threads) for isa, threads in zip(isas(), (2, 1, 2), strict=False)]
    for session in sessions:
        report = verify(model, session, x)
        assert report.ok, f"\n{model}\n{report}"
        names = [f"{path}.input" for path in codes]
        values = session.run_values(x.numpy(), names)
        for path, wanted in codes.items():
            np.testing.assert_array_equal(values[f"{path}.input"], wanted)
        np.testing.assert_array_equal(session(x.numpy()), expected)


def sixty_five(seed=0):
    """A net whose flatten has 65 channels, with padding, groups, a residual and all pools."""
    from torch import nn

    from lobit import nn as lnn

    one = {"weight_quantizer": "magnitude_sign", "input_quantizer": "sign"}
    two = {"weight_quantizer": {"name": "lsq", "bits": 2}, "input_quantizer": {"name": "lsq", "bits": 2}}
    model = nn.Sequential(
        lnn.Conv2d(3, 65, 3, padding=1, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer={"name": "lsq", "bits": 8}),
        lnn.BatchNorm2d(65),
        oracle.Residual(nn.Sequential(lnn.Conv2d(65, 65, 3, padding=1, bias=False, **one), lnn.BatchNorm2d(65))),
        nn.MaxPool2d(2),
        nn.ReLU(),
        lnn.Conv2d(65, 65, 2, padding=1, groups=5, **two),
        lnn.BatchNorm2d(65),
        lnn.AvgPool2d(2),
        nn.Flatten(),
        lnn.Linear(65 * 4, 33, **one),
        lnn.BatchNorm1d(33),
        nn.ReLU(),
        lnn.Linear(33, 10, **two),
    )
    return settle(model, (3, 8, 8), seed)


@pytest.mark.parametrize("batch", [0, 1, 9, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_batch_thread_count_and_memory_format(batch, threads, tmp_path):
    model = sixty_five()
    export(model, torch.randn(4, 3, 8, 8), tmp_path / "net.lobit")
    x = torch.randn(batch, 3, 8, 8)
    session = load(tmp_path / "net.lobit", threads=threads)
    assert verify(model, session, x).ok
    y = session(x.numpy())
    assert y.shape == (batch, 10)
    like = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        np.testing.assert_array_equal(model.to(memory_format=torch.channels_last)(like).numpy(), y)
    np.testing.assert_array_equal(session(like.numpy()), y)


def test_every_cpu_path_of_pytorch_gives_the_packed_numbers(tmp_path):
    model = sixty_five()
    x = torch.randn(16, 3, 8, 8)
    export(model, x, tmp_path / "net.lobit")
    torch.save((model.state_dict(), x), tmp_path / "net.pt")
    code = (
        "import sys, torch; from pathlib import Path; from tests.capture.test_same_numbers import sixty_five; from lobit.capture import verify\n"
        "model = sixty_five(1).train(); folder = Path(sys.argv[1]); state, x = torch.load(folder / 'net.pt', weights_only=True)\n"
        "model.load_state_dict(state); report = verify(model.eval(), folder / 'net.lobit', x); print(report); sys.exit(not report.ok)"
    )
    for capability in ("default", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{capability}:\n{done.stdout}{done.stderr}"


def test_a_forked_child_gets_the_same_numbers(tmp_path):
    model = sixty_five()
    x = torch.randn(8, 3, 8, 8)
    export(model, x, tmp_path / "net.lobit")
    session = load(tmp_path / "net.lobit", threads=2)
    y = session(x.numpy())
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(session(x.numpy()), y) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
