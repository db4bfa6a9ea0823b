"""Fuzz the reader: every mutant is refused with a `FormatError`, or is a graph that also builds a session and runs.

usage: python -m tests.fuzz.fuzz_file [seconds] [seed]      needs numpy and lobit; runs sessions where the native module is built
"""

from __future__ import annotations

import importlib.util
import math
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from lobit.errors import FormatError, LobitError
from lobit.format import Graph, file_bytes, read_file
from tests.format.samples import SAMPLES
from tests.fuzz.mutate import mutate

GOLDEN = Path(__file__).parent.parent / "golden"
MAX_SECONDS = 10.0  # one small file; more is a hang
MAX_RUN_VALUES = 1 << 22  # a mutant may honestly describe a net too large to run a hundred times a second


def fuzz(seconds: float, seed: int) -> Counter[str]:
    """Mutate for a while; return how many mutants were refused, read and run.

    Raises
    ------
    AssertionError
        With the seed, the mutant's number and where it was saved, when a mutant breaks the rule above.
    """
    rng = random.Random(seed)
    originals = [file_bytes(sample()) for sample in SAMPLES.values()] + [path.read_bytes() for path in sorted(GOLDEN.glob("*.lobit"))]
    can_run = importlib.util.find_spec("lobit._native") is not None
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.lobit"
        while time.monotonic() < end:
            data = mutate(rng.choice(originals), rng)
            path.write_bytes(data)
            start = time.monotonic()
            try:
                outcomes[_try(path, can_run)] += 1
            except Exception as error:
                kept = Path(tempfile.gettempdir()) / f"lobit-mutant-{seed}-{outcomes.total()}.lobit"
                kept.write_bytes(data)
                raise AssertionError(f"seed {seed}, mutant {outcomes.total()}, kept as {kept}:\n{traceback.format_exc()}") from error
            spent = time.monotonic() - start
            assert spent < MAX_SECONDS, f"seed {seed}, mutant {outcomes.total()} took {spent:.1f} s"
    return outcomes


def _try(path: Path, can_run: bool) -> str:
    try:
        graph = read_file(path)
    except FormatError:
        return "refused"
    if not can_run or _size(graph) > MAX_RUN_VALUES:
        return "read"
    return _run(graph)


def _run(graph: Graph) -> str:
    from lobit.runtime import Session

    try:
        session = Session(graph)
        arrays = [np.random.default_rng(5).normal(size=(2, *shape)).astype(np.float32) for shape in graph.inputs.values()]
        session(*arrays)
    except LobitError:
        return "refused by the session"
    return "run"


def _size(graph: Graph) -> int:
    """Values and the padded images behind them, roughly."""
    pads = [pad for node in graph.nodes for pad in node.attrs.get("padding", ())]
    border = (1 + max(pads, default=0)) ** 2
    return max(math.prod(value.shape) for value in graph.types.values()) * border


def main() -> None:
    """Run from the command line."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**32)
    native = importlib.util.find_spec("lobit._native")
    print(f"fuzzing files for {seconds:g} s, seed {seed}, engine {native.origin if native else 'not built'}", flush=True)
    outcomes = fuzz(seconds, seed)
    print(f"{outcomes.total()} mutants: " + ", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    if outcomes.total() < 10 * seconds or not outcomes["refused"] or outcomes.total() == outcomes["refused"]:
        sys.exit("too few mutants, or none of them passed the reader: the fuzzer itself is broken")


if __name__ == "__main__":
    main()
