"""Fair timings: all candidates in one process, in turns, so that a change of the clock or a noisy neighbour meets each of them alike."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lobit.errors import ConfigError

WARM_UP = 2
MIN_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Timing:
    """Best and median of the repetitions of one candidate, in milliseconds."""

    best_ms: float
    median_ms: float
    repetitions: int


def best_ms(run: Callable[[], object], seconds: float) -> float:
    """The fastest of many calls within ``seconds``: what the machine can do when nothing else runs."""
    return alternate({"": run}, seconds)[""].best_ms


def alternate(candidates: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Time every candidate for about `seconds` in total each, one slice of each in turn.

    The best repetition is the figure to compare: all that disturbs a run makes it slower.
    """
    for run in candidates.values():
        for _ in range(WARM_UP):
            run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    rounds = 0
    slice_seconds = seconds / MIN_ROUNDS
    while rounds < MIN_ROUNDS:
        for name, run in candidates.items():
            end = time.perf_counter() + slice_seconds
            while True:
                start = time.perf_counter()
                run()
                stop = time.perf_counter()
                times[name].append((stop - start) * 1e3)
                if stop >= end:
                    break
        rounds += 1
    return {name: Timing(min(spent), statistics.median(spent), len(spent)) for name, spent in times.items()}


@contextlib.contextmanager
def one_core(core: int | None = None) -> Iterator[int | None]:
    """Keep the calling thread, and those that it starts, on one core; afterwards it may run where it might before.

    Parameters
    ----------
    core : int, optional
        By default the first that this thread may use.

    Yields
    ------
    int or None
        The core; None where the system has no way to ask for one.

    Raises
    ------
    ConfigError
        For a core that this thread may not use.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    chosen = min(before) if core is None else core
    if chosen not in before:
        raise ConfigError(f"core {chosen} is not one of those that this process may use: {', '.join(map(str, sorted(before)))}")
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
