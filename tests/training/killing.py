"""A warm process that runs commands in forked children, which kill themselves with SIGKILL at a chosen point.

The interpreter and torch start once; a child is the process that a user's command would be. The points: in the n-th atomic write ``created`` (the
temporary file is there), ``half`` (half of its bytes are), ``whole`` (all are, under the temporary name) and ``renamed``; or at the n-th call of a function.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from tests import warm

STAGES = ("created", "half", "whole", "renamed")
WRITES = "writes.txt"
"""Where a command leaves the names of the files it wrote, in order."""


class Warm:
    """The process, from a test's side."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.killing"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, kill=None):
        """Run a command; return its exit status, negative for a signal, and what it printed."""
        self.process.stdin.write(json.dumps([list(map(str, arguments)), kill]) + "\n")
        self.process.stdin.flush()
        status, told = json.loads(self.process.stdout.readline())
        return status, told

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWriter:
    """A stream that ends the process in the middle of its first write."""

    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def write(self, data):
        self.stream.write(bytes(data)[: len(data) // 2])
        self.stream.flush()
        os.fsync(self.stream.fileno())
        die()


def arm(kill):
    """Make this process die at a point; also note what it writes."""
    from lobit import atomic

    point, number = kill or ("never", 0)
    temporary, rename, count = atomic._locked_temporary, os.replace, [0]

    def created(folder):
        count[0] += 1
        made = temporary(folder)
        if point == "created" and count[0] == number:
            die()
        return made

    def opened(path, mode):
        stream = builtins.open(path, mode)  # noqa: SIM115  # the writer closes it
        return HalfWriter(stream) if point == "half" and count[0] == number else stream

    def renamed(old, new):
        ours = Path(old).name.startswith(atomic.PREFIX)
        if ours and point == "whole" and count[0] == number:
            die()
        rename(old, new)
        if ours:
            with builtins.open(WRITES, "a") as listed:
                listed.write(f"{Path(new).name}\n")
        if ours and point == "renamed" and count[0] == number:
            die()

    atomic._locked_temporary, atomic.open, os.replace = created, opened, renamed
    if ":" in point:
        module, path = point.split(":")
        *outer, name = path.split(".")
        owner = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        real, calls = getattr(owner, name), [0]

        def counted(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                die()
            return real(*args, **kwargs)

        setattr(owner, name, counted)


def prepare():
    """Few digits; and a net that draws from every generator, calibrates in its first batch, and learns steps."""
    import numpy as np
    import torch
    from torch import nn

    import lobit.training.run as run
    from lobit import nn as lnn
    from lobit.data import load_data
    from lobit.models import register
    from lobit.quantizers import LSQ, CodeDropout, LSQWeights, MagnitudeSign, StochasticSign

    warm.prepare()
    digits = load_data("digits")
    few = replace(
        digits,
        train_images=digits.train_images[:300],
        train_labels=digits.train_labels[:300],
        test_images=digits.test_images[:100],
        test_labels=digits.test_labels[:100],
    )
    run.load_data = lambda name, folder: few

    class Noise(nn.Module):
        def forward(self, x):
            return x * (1 + 0.1 * random.random() + 0.1 * np.random.random() + 0.1 * torch.rand(())) if self.training else x  # noqa: NPY002

    @register("random-net", input_shape=(1, 8, 8), num_classes=10, description="for tests")
    def random_net(bits):
        return nn.Sequential(
            nn.Flatten(),
            lnn.Linear(64, 24, bias=False, weight_quantizer=LSQWeights(4), input_quantizer=CodeDropout(LSQ(4), 0.1)),
            lnn.BatchNorm1d(24),
            Noise(),
            nn.Hardtanh(),
            nn.Dropout(0.1),
            lnn.Linear(24, 24, bias=False, weight_quantizer=MagnitudeSign(), input_quantizer=CodeDropout(StochasticSign(), 0.2)),
            lnn.BatchNorm1d(24),
            lnn.Linear(24, 10, weight_quantizer=LSQWeights(8), input_quantizer=LSQ(1)),
        )


def child(arguments, kill, output):
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from lobit.cli.app import run

    arm(kill)
    return run(arguments)


def main():
    prepare()
    for line in sys.stdin:
        arguments, kill = json.loads(line)
        Path(WRITES).unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            status = 1
            try:
                status = child(arguments, kill, "output.txt")
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, ended = os.waitpid(process, 0)
        print(json.dumps([os.waitstatus_to_exitcode(ended), Path("output.txt").read_text()]), flush=True)


if __name__ == "__main__":
    main()
