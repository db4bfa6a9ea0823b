"""The figures of a sweep: a row for each combination of bits, the Pareto front, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lobit.errors import ConfigError

VERSION = 1


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One combination of bits.

    Parameters
    ----------
    weights, activations : int
    seeds : tuple of int
        Of the nets that were trained; accuracies are over all of them, the other figures of the first one's file.
    accuracy, accuracy_low, accuracy_high : float
        Share of the test set that the packed file reads: mean, least and largest over the seeds.
    validation_accuracy : float or None
        Mean over the seeds.
    exact : bool
        Whether every layer gives the same bits in PyTorch and packed.
    file_bytes, weight_bytes, float_bytes : int
        The packed file; its weights as stored; the same weights in float32.
    macs_by_width : mapping of str to int
        Multiply-accumulates of one image, as ``{"W1A2": 1000}``.
    bit_operations : int
        Products of single bits, as `lobit.report.cost` counts them.
    joules : float
        Of one image, estimated as `lobit.report.energy` says.
    latency_ms : mapping of str to float
        Of the packed file at one thread, the fastest of many calls, by batch size.
    seconds : float
        Of the training, mean over the seeds.
    """

    weights: int
    activations: int
    seeds: tuple[int, ...]
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    validation_accuracy: float | None
    exact: bool
    file_bytes: int
    weight_bytes: int
    float_bytes: int
    macs_by_width: Mapping[str, int]
    bit_operations: int
    joules: float
    latency_ms: Mapping[str, float]
    seconds: float

    @property
    def bits(self) -> str:
        """As ``W1A2``."""
        return f"W{self.weights}A{self.activations}"


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What came of a sweep.

    Parameters
    ----------
    name : str
        Of the recipe.
    recipe : mapping
        Its fields, without bits and seed.
    weights, activations : tuple of int
        The widths asked for.
    test_images : int
    machine : mapping
        Where the latencies were measured, and with which version of lobit.
    rows : tuple of SweepRow
        In the order asked for; a combination that failed has none.
    failures : mapping of str to str
        Why, by the net's name.
    folder : str
        Of the sweep.
    """

    name: str
    recipe: Mapping[str, Any]
    weights: tuple[int, ...]
    activations: tuple[int, ...]
    test_images: int
    machine: Mapping[str, Any]
    rows: tuple[SweepRow, ...]
    failures: Mapping[str, str]
    folder: str

    def to_json(self) -> str:
        """One JSON value; `read_result` reads it back."""
        return json.dumps({"sweep": VERSION, **asdict(self)}, indent=1)

    def to_csv(self) -> str:
        """One line for each combination; multiply-accumulates and latencies in columns of their own."""
        widths = sorted({width for row in self.rows for width in row.macs_by_width})
        batches = sorted({batch for row in self.rows for batch in row.latency_ms}, key=int)
        text = io.StringIO()
        names = [field.name for field in fields(SweepRow) if field.name not in ("macs_by_width", "latency_ms")]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*names, *(f"macs_{width}" for width in widths), *(f"latency_ms_batch_{batch}" for batch in batches)])
        for row in self.rows:
            values = [" ".join(map(str, value)) if isinstance(value := getattr(row, name), tuple) else value for name in names]
            writer.writerow([*values, *(row.macs_by_width.get(width, 0) for width in widths), *(row.latency_ms.get(b) for b in batches)])
        return text.getvalue()

    def front(self, cost: str) -> tuple[SweepRow, ...]:
        """The rows that no other beats: none has as high an accuracy at a lower ``cost``, nor a higher one at no higher cost."""
        return tuple(self.rows[index] for index in pareto_front([(getattr(row, cost), row.accuracy) for row in self.rows]))


def read_result(path: str | os.PathLike[str]) -> SweepResult:
    """Read a ``sweep.json``.

    Raises
    ------
    ConfigError
        When there is none, or it is damaged or of another version.
    """
    try:
        stored = json.loads(Path(path).read_bytes())
        version = stored.pop("sweep")
        if version != VERSION:
            raise ConfigError(f"{os.fspath(path)!r} has version {version!r} of a sweep's result, this lobit reads {VERSION}")
        rows = tuple(SweepRow(**{**row, "seeds": tuple(row["seeds"])}) for row in stored.pop("rows"))
        stored |= {name: tuple(stored[name]) for name in ("weights", "activations")}
        return SweepResult(**stored, rows=rows)
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(path)!r}: {error.strerror}; `lobit sweep` writes it") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{os.fspath(path)!r} is no result of a sweep: {error}") from error


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, value) no other point dominates, by rising cost.

    A point is dominated when another costs no more and is worth no less, and one of the two is strict; equal points do not dominate each other.

    Examples
    --------
    >>> pareto_front([(3, 0.9), (1, 0.8), (2, 0.7), (3, 0.9)])
    [1, 0, 3]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        best = points[front[-1]] if front else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            front.append(index)
    return front
