"""Fair timings: all candidates in one process, in turns, so that a change of the clock or a noisy neighbour meets each of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
