"""Latencies: measured once all nets are there, in turns, so that no training runs beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.atomic import atomic_file
from lobit.report.machine import facts
from lobit.report.timing import alternate
from lobit.runtime import load

LATENCIES = "latency.json"
BATCHES = (1, 100)
SECONDS_A_TIMING = 0.25


def latencies(
    path: Path, files: Mapping[str, Path], images: NDArray[np.float32], *, again: bool = False
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The machine, and the milliseconds of a batch by net and batch size: as ``path`` holds them, or measured and written there.

    All nets are timed in turns, at one thread, and the fastest call of each counts; so they are timed anew, all of them, where one is missing.

    Parameters
    ----------
    path : Path
    files : mapping of str to Path
        The packed file of each net.
    images : float32 ndarray
        At least as many as the largest batch, else as many as there are.
    again : bool
        Measure whatever the file holds.
    """
    if not again and (stored := _stored(path)) is not None and files.keys() <= stored[1].keys():
        return stored[0], {name: stored[1][name] for name in files}
    sessions = {name: load(file) for name, file in files.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in files}
    for batch in BATCHES:
        timed = alternate({name: partial(session, images[:batch]) for name, session in sessions.items()}, SECONDS_A_TIMING)
        for name, timing in timed.items():
            found[name][str(batch)] = round(timing.best_ms, 5)
    machine = {**facts(), "isa": next(iter(sessions.values())).isa, "threads": 1}
    with atomic_file(path) as stream:
        stream.write(json.dumps({"machine": machine, "nets": found}, indent=1).encode())
    return machine, found


def _stored(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]] | None:
    """What was measured before; None where nothing was, or it cannot be read."""
    try:
        fields = json.loads(path.read_bytes())
        return dict(fields["machine"]), dict(fields["nets"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
