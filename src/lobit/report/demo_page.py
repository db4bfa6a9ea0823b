"""The demo's page: one file, with its pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.report.answers import samples
from lobit.report.figures import Theme, axes, inline_svg, legend
from lobit.report.page import write_page

SERIES = {"float": 5, "W1A1": 1, "W2A2": 0, "W4A4": 2}
SAMPLES = 24


def write_report(
    path: Path, rows: Sequence[dict[str, Any]], images: NDArray[np.uint8], labels: NDArray[np.int64], logits: NDArray[np.float32]
) -> None:
    """Write ``report.html``: the table, training curves, accuracy against size, latency, and sample predictions.

    Parameters
    ----------
    path : Path
    rows : sequence of dict
        As results.json holds them, float first, then W1A1; their ``page`` is an address as seen from ``path``.
    images, labels, logits : ndarray
        The test set, pixels 0 .. 255, and the answers of the W1A1 net.
    """
    figures = {
        "curves": inline_svg(partial(_curves, rows), "Training loss by epoch, a line for each net"),
        "sizes": inline_svg(partial(_sizes, rows, len(labels)), "Accuracy against file size, a point for each net"),
        "latency": inline_svg(partial(_latency, rows), "Latency by net and batch, and that of PyTorch"),
    }
    answered = samples(images, labels, logits, tuple("0123456789"), SAMPLES)
    write_page(path, "demo_page", rows=rows, figures=figures, samples=answered, tested=len(labels))


def _curves(rows: Sequence[dict[str, Any]], theme: Theme) -> Any:
    figure, plot = axes(theme, "Training loss", "epoch", "cross-entropy (log scale)")
    for row in rows:
        plot.plot(
            [e["epoch"] for e in row["history"]],
            [e["train_loss"] for e in row["history"]],
            label=row["net"],
            color=theme.series[SERIES[row["net"]]],
        )
    plot.set_yscale("log")
    legend(plot, theme)
    return figure


def _sizes(rows: Sequence[dict[str, Any]], tested: int, theme: Theme) -> Any:
    figure, plot = axes(theme, "Accuracy against size", "file, kilobytes (log scale)", "test accuracy, packed, %")
    for row in rows:
        x, y = row["file_bytes"] / 1000, row["accuracy_packed"] * 100
        low, high = (100 * end for end in likely(row["accuracy_packed"], tested))
        plot.plot([x, x], [low, high], color=theme.series[SERIES[row["net"]]], linewidth=1, alpha=0.6)
        plot.scatter([x], [y], color=theme.series[SERIES[row["net"]]], s=50, zorder=3)
        plot.annotate(row["net"], (x, y), xytext=(6, 6), textcoords="offset points", color=theme.text)
    plot.set_xscale("log")
    plot.margins(0.25)
    return figure


def likely(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted on ``n`` samples.

    References
    ----------
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.

    Examples
    --------
    >>> tuple(round(end, 4) for end in likely(0.5, 100))
    (0.4038, 0.5962)
    """
    z = 1.959964
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _latency(rows: Sequence[dict[str, Any]], theme: Theme) -> Any:
    figure, plot = axes(theme, "Latency, one thread", "", "ms a batch (log scale)")
    batches = list(rows[0]["packed_ms"])
    names = [*(row["net"] for row in rows), "PyTorch\nfp32"]
    for index, batch in enumerate(batches):
        values = [*(row["packed_ms"][batch] for row in rows), rows[0]["torch_ms"][batch]]
        places = np.arange(len(names)) + (index - 0.5) * 0.38
        bars = plot.bar(places, values, 0.36, label=f"batch {batch}", color=theme.series[5 * (index % 2)], zorder=3)
        plot.bar_label(bars, fmt="%.2g", fontsize=7, color=theme.text)
    plot.set_yscale("log")
    plot.set_xticks(range(len(names)), names)
    plot.set_ylim(top=plot.get_ylim()[1] * 6)  # room for the legend above the bars
    legend(plot, theme, ncols=len(batches), loc="upper right")
    return figure
