"""What a session does, operator by operator, and how long each takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One operator that runs; several nodes of the graph may be fused into it.

    Parameters
    ----------
    name : str
        Its layers: ``"conv1 + act1"``.
    op : str
        Their operators: ``"conv2d + threshold"``. ``pad``, ``regroup``, ``pack``, ``load``, ``reorder`` and ``store`` are the engine's own copies.
    types : str
        Weights, input and output: ``"odd1 x unsigned2 -> odd1"``.
    kernel : str
        A name of the kernel table, or the loop that runs.
    carrier : str
        How the codes lie in memory: ``planes`` of bits, ``bytes``, or ``""`` where there are none.
    reason : str
        Why this kernel.
    weight_bytes : int
        Weights as packed for the kernel.
    macs : int
        Multiply-accumulates of one sample.
    inexact : bool
        Whether it lies outside the exact class: its floats depend on the order of a sum.
    """

    name: str
    op: str
    types: str
    kernel: str
    carrier: str
    reason: str
    weight_bytes: int
    macs: int
    inexact: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All operators of a session in the order they run; ``str()`` makes a table."""

    isa: str
    threads: int
    rows: tuple[OperatorRow, ...]

    def __str__(self) -> str:
        head = ("layer", "operator", "codes", "kernel", "carrier", "weight bytes", "MACs", "why")
        body = [
            (
                row.name,
                row.op + (" (inexact)" if row.inexact else ""),
                row.types,
                row.kernel,
                row.carrier,
                f"{row.weight_bytes:,}" if row.weight_bytes else "",
                f"{row.macs:,}" if row.macs else "",
                row.reason,
            )
            for row in self.rows
        ]
        return f"{self.isa}, {self.threads} thread(s)\n" + table(head, body, right=(5, 6))


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Time of one operator: seconds of the fastest run, its share of the whole, and 10^9 multiply-accumulates a second (0 without any)."""

    name: str
    op: str
    kernel: str
    seconds: float
    share: float
    gmacs_per_second: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The times of all operators for one batch; ``str()`` makes a table."""

    batch: int
    threads: int
    rows: tuple[ProfileRow, ...]

    @property
    def seconds(self) -> float:
        """Of all operators."""
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "operator", "kernel", "ms", "share", "G MAC/s")
        body = [
            (
                row.name,
                row.op,
                row.kernel,
                f"{row.seconds * 1e3:.4f}",
                f"{row.share:.1%}",
                f"{row.gmacs_per_second:.1f}" if row.gmacs_per_second else "",
            )
            for row in self.rows
        ]
        total = f"{self.seconds * 1e3:.4f} ms for a batch of {self.batch}, {self.threads} thread(s)\n"
        return total + table(head, body, right=(3, 4, 5))


def table(head: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns of text, those of ``right`` aligned to the right.

    Examples
    --------
    >>> print(table(("a", "b"), [("x", "10"), ("yy", "2")], right=(1,)))
    a    b
    x   10
    yy   2
    """
    rows = [tuple(head), *(tuple(row) for row in body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in rows)


def shorten(text: str, width: int) -> str:
    """``text``, its middle left out where it is longer than ``width``: names differ at their ends.

    Examples
    --------
    >>> shorten("features.12.block.conv1", 14)
    'feat...k.conv1'
    """
    if len(text) <= width:
        return text
    start = (width - 3) // 3 + (width - 3) % 3 // 2
    return f"{text[:start]}...{text[len(text) - (width - 3 - start) :]}"
