"""A packed file beside the float network of its shape, in one process and in turns; and each of its layers beside the limit of the core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lobit.bits import CodeType
from lobit.errors import ConfigError, ShapeError
from lobit.format import About, Graph, about_graph
from lobit.report.cost import cost_of
from lobit.report.floatnet import float_net
from lobit.report.machine import facts
from lobit.report.peers import Arrays, check_peers, peers
from lobit.report.timing import Timing, alternate, one_core
from lobit.runtime import Explanation, OperatorRow, Session, kernels, load, probe_limit
from lobit.runtime.hardware import PROBES

LOBIT = "lobit"
REPETITIONS = 15
PROBE_TRIES = 3
MAX_SECONDS = 3600.0
KINDS = {"xor": "one-bit", "and": "one-bit", "dot8": "int8", "float_product": "fp32"}
"""Which limit the kernels of an operation are held against."""

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The time of one operator for one batch.

    Parameters
    ----------
    name, op, types, kernel : str
        As `Session.explain` has them.
    ms : float
        Its fastest run.
    time_share : float
        Of the sum of all operators.
    gmacs : float
        10^9 multiply-accumulates a second; 0 for an operator without any.
    limit : str
        ``"one-bit"``, ``"int8"`` or ``"fp32"``, or ``""`` without multiply-accumulates.
    plane_products : int
        One-bit products that make one multiply-accumulate: bits of a weight times bits of an activation; 1 for bytes and floats.
    limit_share : float
        ``gmacs`` as a share of ``threads * limit / plane_products``; 0 where the limit is not known.
    """

    name: str
    op: str
    types: str
    kernel: str
    ms: float
    time_share: float
    gmacs: float
    limit: str
    plane_products: int
    limit_share: float


@dataclass(frozen=True, slots=True)
class BatchBench:
    """One batch size: the timings by net, ``"lobit"`` first, and the layers of the packed file."""

    batch: int
    timings: dict[str, Timing]
    layers: tuple[LayerTime, ...]

    def ratio(self, peer: str) -> float:
        """How many times faster the packed file is: best against best."""
        return self.timings[peer].best_ms / self.timings[LOBIT].best_ms

    def images_per_second(self, net: str) -> float:
        """Samples a second, of the best repetition."""
        return self.batch * 1e3 / self.timings[net].best_ms


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All that was measured; `lobit.report.bench_table` makes tables and the picture of it.

    Parameters
    ----------
    path : str
    isa : str
    threads : int
    core : int or None
        The core that all ran on; None with several threads.
    seconds : float
        Asked for, for each net and batch.
    limits : dict of str to float
        10^9 multiply-accumulates a second of one core, probed before and after each batch; the best counts.
    nbytes : dict of str to int
        ``lobit`` (the file), ``lobit_weights``, ``float_weights``, and what each peer holds.
    batches : tuple of BatchBench
    left_out : dict of str to str
        Peers that are missing, and why.
    machine : dict
        Processor, system and versions.
    """

    path: str
    isa: str
    threads: int
    core: int | None
    seconds: float
    limits: dict[str, float]
    nbytes: dict[str, int]
    batches: tuple[BatchBench, ...]
    left_out: dict[str, str]
    machine: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with ratios and samples a second."""
        rows = [
            {
                **asdict(row),
                "times_faster_than": {name: row.ratio(name) for name in row.timings if name != LOBIT},
                "images_per_second": {name: row.images_per_second(name) for name in row.timings},
            }
            for row in self.batches
        ]
        return {**asdict(self), "batches": rows}


def bench(
    net: str | os.PathLike[str] | Graph,
    *,
    batches: Sequence[int] = (1, 32),
    threads: int = 1,
    seconds: float = 3.0,
    wanted: Sequence[str] | None = None,
    isa: str | None = None,
    core: int | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Time a packed file beside its float peers.

    With one thread the calling thread is kept on one core meanwhile, and all nets with it. Inputs are random numbers in the range that the file states for
    its pixels, else in 0 .. 1: what a network costs does not depend on what it sees.

    Parameters
    ----------
    net : path-like or Graph
    batches : sequence of int
    threads : int
        Of every net.
    seconds : float
        For each net and batch size.
    wanted : sequence of str, optional
        Peers, of ``"torch"`` and ``"onnxruntime"``; by default those that are installed.
    isa : str, optional
        Instruction set of the packed file.
    core : int, optional
        The core for one thread; by default the first that the calling thread may use.
    progress : callable, optional
        Called with the batch sizes done and their number.

    Raises
    ------
    ConfigError
        For settings that are not allowed, before any work.
    FormatError
        For a file that is none.
    """
    _check(batches, seconds)
    names = check_peers(wanted)
    session = Session(net, threads=threads, isa=isa) if isinstance(net, Graph) else load(net, threads=threads, isa=isa)
    graph = session.graph
    cost = cost_of(graph)
    with one_core(core) if threads == 1 else contextlib.nullcontext() as used:
        limits = _probe({})
        first = _inputs(graph, max(batches))
        with peers(float_net(graph), first, wanted=names, threads=threads) as others:
            raw = []
            for index, batch in enumerate(batches):
                x = tuple(array[:batch] for array in first)
                timings = alternate({LOBIT: lambda x=x: session(*x), **others.runners(x)}, seconds)  # type: ignore[misc]
                raw.append((batch, timings, session.profile(*x, repetitions=REPETITIONS)))
                limits = _probe(limits)
                if progress is not None:
                    progress(index + 1, len(batches))
        explained = session.explain()
    sizes = {"lobit": 0 if isinstance(net, Graph) else Path(net).stat().st_size, "lobit_weights": cost.weight_bytes}
    return BenchResult(
        "" if isinstance(net, Graph) else os.fspath(net),
        session.isa,
        threads,
        used,
        seconds,
        limits,
        {**sizes, "float_weights": cost.float_bytes, **others.nbytes},
        tuple(BatchBench(batch, timings, _layers(explained, profile, limits, threads)) for batch, timings, profile in raw),
        others.left_out,
        facts(),
    )


def _check(batches: Sequence[int], seconds: float) -> None:
    if not batches or any(type(batch) is not int or batch < 1 for batch in batches):
        raise ConfigError(f"batches are {list(batches)!r}; give one or more integers of at least 1")
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"seconds is {seconds!r}; it must be above 0 and at most {MAX_SECONDS:.0f}")


def _probe(known: dict[str, float]) -> dict[str, float]:
    return {what: max(known.get(what, 0.0), *(probe_limit(what) for _ in range(PROBE_TRIES))) for what in PROBES}


def _inputs(graph: Graph, batch: int) -> Arrays:
    about = about_graph(graph) if graph.meta.get("pixels") else About()
    rng = np.random.default_rng(0)
    try:
        return [
            (about.low + (about.high - about.low) * rng.random((batch, *shape), np.float32)).astype(np.float32)
            for shape in graph.inputs.values()
        ]
    except (MemoryError, ValueError) as error:
        raise ShapeError(f"there is not enough memory for a batch of {batch}: {error}; use a smaller one") from None


def _layers(explained: Explanation, profile: Any, limits: dict[str, float], threads: int) -> tuple[LayerTime, ...]:
    ops = {kernel.name: kernel.op for kernel in kernels()}
    found = []
    for row, time in zip(explained.rows, profile.rows, strict=True):
        limit = KINDS.get(ops.get(row.kernel, ""), "") if row.macs else ""
        planes = plane_products(row) if limit == "one-bit" else 1
        most = limits.get(limit, 0.0) * threads / planes
        share = time.gmacs_per_second / most if most else 0.0
        found.append(
            LayerTime(row.name, row.op, row.types, row.kernel, time.seconds * 1e3, time.share, time.gmacs_per_second, limit, planes, share)
        )
    return tuple(found)


def plane_products(row: OperatorRow) -> int:
    """How many one-bit products a product of planes takes for one multiply-accumulate: ``"ternary2 x unsigned3 -> .."`` takes six."""
    weight, _, rest = row.types.partition(" x ")
    x = rest.split(" ")[0]
    return CodeType.parse(weight).bits * CodeType.parse(x).bits
