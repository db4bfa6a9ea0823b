"""The demo's page: one file, with its pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.report.figures import Theme, axes, inline_svg, legend, picture_grid
from lobit.report.page import write_page

SERIES = {"float": 5, "W1A1": 1, "W2A2": 0, "W4A4": 2}
SAMPLES = 20


def write_report(
    path: Path, rows: Sequence[dict[str, Any]], images: NDArray[np.uint8], labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> None:
    """Write ``report.html``: the table, training curves, accuracy against size, latency, and sample predictions.

    Parameters
    ----------
    path : Path
    rows : sequence of dict
        As results.json holds them.
    images, labels, predicted : ndarray
        The test set and what the W1A1 net made of it.
    """
    figures = {
        "curves": inline_svg(partial(_curves, rows), "Training loss by epoch"),
        "sizes": inline_svg(partial(_sizes, rows), "Accuracy against file size"),
        "latency": inline_svg(partial(_latency, rows), "Latency by net and batch"),
        "samples": inline_svg(partial(_samples, images, labels, predicted), "Sample digits with predictions"),
    }
    write_page(path, "demo_page", rows=rows, figures=figures)


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


def _sizes(rows: Sequence[dict[str, Any]], theme: Theme) -> Any:
    figure, plot = axes(theme, "Accuracy against size", "file, kilobytes (log scale)", "test accuracy, packed, %")
    for row in rows:
        x, y = row["file_bytes"] / 1000, row["accuracy_packed"] * 100
        plot.scatter([x], [y], color=theme.series[SERIES[row["net"]]], s=50, zorder=3)
        plot.annotate(row["net"], (x, y), xytext=(6, 6), textcoords="offset points", color=theme.text)
    plot.set_xscale("log")
    plot.margins(0.25)
    return figure


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


def _samples(images: NDArray[np.uint8], labels: NDArray[np.int64], predicted: NDArray[np.int64], theme: Theme) -> Any:
    """Mistakes first, then the first digits of the test set."""
    order = np.argsort(predicted == labels, kind="stable")[:SAMPLES]
    figure, grid = picture_grid(2, SAMPLES // 2, (9, 2.5))
    for plot, index in zip(grid.flat, order, strict=True):
        right = predicted[index] == labels[index]
        plot.imshow(images[index, 0], cmap="gray_r")
        plot.set_title(
            f"{predicted[index]}" if right else f"{predicted[index]}, is {labels[index]}",
            fontsize=9,
            color=theme.good if right else theme.bad,
        )
    return figure
