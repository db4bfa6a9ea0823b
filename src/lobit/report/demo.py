"""The demo's page: one file, with its pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from lobit.atomic import atomic_file

mpl.use("agg")
from matplotlib import pyplot as plt  # after the backend is chosen: the machine may have no screen

COLORS = {"float": "#6b7280", "W1A1": "#d97706", "W2A2": "#0284c7", "W4A4": "#059669"}
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
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("lobit.report") / "demo.html.jinja").read_text(encoding="utf-8")
    )
    figures = {
        "curves": _picture(_curves(rows)),
        "sizes": _picture(_sizes(rows)),
        "latency": _picture(_latency(rows)),
        "samples": _picture(_samples(images, labels, predicted)),
    }
    with atomic_file(path) as stream:
        stream.write(template.render(rows=rows, figures=figures).encode())


def _picture(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _curves(rows: Sequence[dict[str, Any]]) -> Any:
    figure, axes = _axes("Training loss", "epoch", "cross-entropy (log scale)")
    for row in rows:
        axes.plot(
            [e["epoch"] for e in row["history"]], [e["train_loss"] for e in row["history"]], label=row["net"], color=COLORS[row["net"]]
        )
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def _sizes(rows: Sequence[dict[str, Any]]) -> Any:
    figure, axes = _axes("Accuracy against size", "file, kilobytes (log scale)", "test accuracy, packed, %")
    for row in rows:
        x, y = row["file_bytes"] / 1000, row["accuracy_packed"] * 100
        axes.scatter([x], [y], color=COLORS[row["net"]], s=50, zorder=3)
        axes.annotate(row["net"], (x, y), xytext=(6, 6), textcoords="offset points")
    axes.set_xscale("log")
    axes.margins(0.25)
    return figure


def _latency(rows: Sequence[dict[str, Any]]) -> Any:
    figure, axes = _axes("Latency, one thread", "", "ms a batch (log scale)")
    batches = list(rows[0]["packed_ms"])
    names = [*(row["net"] for row in rows), "PyTorch\nfp32"]
    for index, batch in enumerate(batches):
        values = [*(row["packed_ms"][batch] for row in rows), rows[0]["torch_ms"][batch]]
        places = np.arange(len(names)) + (index - 0.5) * 0.38
        bars = axes.bar(places, values, 0.36, label=f"batch {batch}", color=("#0284c7", "#94a3b8")[index % 2], zorder=3)
        axes.bar_label(bars, fmt="%.2g", fontsize=7)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(top=axes.get_ylim()[1] * 6)  # room for the legend above the bars
    axes.legend(frameon=False, ncols=len(batches), loc="upper right")
    return figure


def _samples(images: NDArray[np.uint8], labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> Any:
    """Mistakes first, then the first digits of the test set."""
    order = np.argsort(predicted == labels, kind="stable")[:SAMPLES]
    figure, grid = plt.subplots(2, SAMPLES // 2, figsize=(9, 2.5))
    for axes, index in zip(grid.flat, order, strict=True):
        right = predicted[index] == labels[index]
        axes.imshow(images[index, 0], cmap="gray_r")
        axes.set_title(
            f"{predicted[index]}" if right else f"{predicted[index]}, is {labels[index]}",
            fontsize=9,
            color="#065f46" if right else "#b91c1c",
        )
        axes.axis("off")
    return figure
