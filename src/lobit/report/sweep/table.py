"""The figures of a sweep as text: the terminal's tables, and the same in Markdown for a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from lobit.report.sweep.result import SweepResult, SweepRow

FLOAT_NOTE = "* One side is float: the net was trained with these bits, but its products run in float32 and its file holds float32 weights."
"""What the nets with 32 on one side are."""
_Z = 1.96
Column = tuple[str, Callable[[SweepRow], str]]


def percent(share: float) -> str:
    """A share in per cent, two digits."""
    return f"{100 * share:.2f}"


def columns(result: SweepResult) -> list[Column]:
    """Heads and values of the table of all nets; the range of the accuracy only where there are several seeds."""
    fronts = {"B": result.front("file_bytes"), "E": result.front("joules")}
    spread: list[Column] = [("of seeds", lambda row: f"{100 * row.accuracy_low:.1f}-{100 * row.accuracy_high:.1f}")]
    return [
        ("bits", lambda row: row.bits + ("" if row.exact else " *")),
        ("accuracy, %", lambda row: percent(row.accuracy)),
        *(spread if seeds_of(result) > 1 else []),
        ("file, kB", lambda row: f"{row.file_bytes / 1000:.1f}"),
        ("bit ops, M", lambda row: f"{row.bit_operations / 1e6:.1f}"),
        ("energy, nJ", lambda row: f"{row.joules * 1e9:.1f}"),
        *(_latency(batch) for batch in batches_of(result)),
        ("front", lambda row: " ".join(mark for mark, front in fronts.items() if row in front)),
    ]


def _latency(batch: str) -> Column:
    return (f"batch {batch}, ms", lambda row: f"{row.latency_ms[batch]:.3f}" if batch in row.latency_ms else "-")


def batches_of(result: SweepResult) -> list[str]:
    """The batch sizes that were timed."""
    return sorted({batch for row in result.rows for batch in row.latency_ms}, key=int)


def seeds_of(result: SweepResult) -> int:
    """How many seeds a combination has, at most."""
    return max(len(row.seeds) for row in result.rows)


def by_bits(result: SweepResult) -> dict[tuple[int, int], SweepRow]:
    """The row of each pair of widths that has one."""
    return {(row.weights, row.activations): row for row in result.rows}


def chance(result: SweepResult) -> tuple[float, float]:
    """The median accuracy, and half of Wilson's 95 % interval about a share of that size: what the choice of test images alone does."""
    count, middle = result.test_images, sorted(row.accuracy for row in result.rows)[len(result.rows) // 2]
    half = _Z * (middle * (1 - middle) / count + (_Z / (2 * count)) ** 2) ** 0.5 / (1 + _Z**2 / count)
    return middle, half


def notes(result: SweepResult) -> list[str]:
    """What one has to know to read the figures."""
    count, seeds = result.test_images, seeds_of(result)
    middle, half = chance(result)
    trained = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    noise = f"one image is {100 / count:.2f} points, and at {percent(middle)} % chance alone moves a net by up to {100 * half:.2f} points (95 %)"
    found = [
        f"Accuracy: packed file, {trained}, {count} test images; {noise}.",
        "Energy: an estimate for one image, from counts alone. Milliseconds: the fastest of many calls, one thread.",
        "Front: no net is as accurate in fewer bytes (B), with less energy (E).",
    ]
    if any(not row.exact for row in result.rows):
        found.append(FLOAT_NOTE)
    return found


def print_tables(result: SweepResult, console: Console) -> None:
    """The grid of accuracies, the table of all nets, and notes, in 80 columns; nets on a Pareto front are marked."""
    rows = by_bits(result)
    grid = Table(box=None, pad_edge=False, padding=(0, 1))
    grid.add_column("accuracy, %", no_wrap=True)
    for a in result.activations:
        grid.add_column(f"A{a}", justify="right", no_wrap=True)
    for w in result.weights:
        grid.add_row(f"W{w}", *(percent(rows[w, a].accuracy) if (w, a) in rows else "failed" for a in result.activations))
    console.print(grid)
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=seeds_of(result) > 1)
    shown = columns(result)
    for head, _ in shown:
        table.add_column(head.replace(", ", "\n"), justify="left" if head in ("bits", "front") else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(*(value(row) for _, value in shown))
    console.print(table)
    for line in notes(result):
        console.print(line, highlight=False)


def markdown(result: SweepResult) -> str:
    """The grid of accuracies and the table of all nets."""
    rows = by_bits(result)
    grid = [[f"**W{w}**", *(_share(rows.get((w, a)), result) for a in result.activations)] for w in result.weights]
    shown = columns(result)
    table = [[value(row).replace("*", "\\*") for _, value in shown] for row in result.rows]
    return "\n\n".join(
        [
            _lines(["accuracy, %", *(f"A{a}" for a in result.activations)], grid),
            _lines([head for head, _ in shown], table),
            "\n".join(f"- {line}" for line in notes(result)).replace("- * ", "- \\* "),
        ]
    )


def _share(row: SweepRow | None, result: SweepResult) -> str:
    if row is None:
        return "failed"
    spread = f" ({percent(row.accuracy_low)}-{percent(row.accuracy_high)})" if seeds_of(result) > 1 else ""
    return percent(row.accuracy) + spread


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])
