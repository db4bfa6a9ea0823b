"""The pictures of a run's page: training curves, histograms of codes, errors of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lobit.report.codes import CodeHistogram
from lobit.report.figures import Theme, axes, legend
from lobit.report.layer_error import LayerError

CURVE, HISTOGRAM = (4.6, 2.9), (2.9, 1.75)
FEW_LEVELS = 16
"""Levels that have room for a bar and a number each."""
STAGES = {"train": ("training", 0), "val": ("validation", 1)}


def loss_curve(history: Sequence[dict[str, float]], best: int, theme: Theme) -> Any:
    """Loss by epoch, on a logarithmic scale where it falls far."""
    figure, plot = _curves(history, "loss", 1.0, best, theme)
    values = [row[name] for row in history for name in ("train_loss", "val_loss") if name in row]
    if min(values) > 0 and max(values) > 20 * min(values):
        plot.set_yscale("log")
    return figure


def accuracy_curve(history: Sequence[dict[str, float]], best: int, test: float, theme: Theme) -> Any:
    """Accuracy by epoch in percent, with the test set's as a level."""
    figure, plot = _curves(history, "accuracy", 100.0, best, theme)
    plot.axhline(100 * test, color=theme.series[2], linestyle=(0, (4, 3)), linewidth=1.2, label="test")
    legend(plot, theme, loc="lower right")
    return figure


def rate_curve(history: Sequence[dict[str, float]], theme: Theme) -> Any:
    """The learning rate by epoch."""
    figure, plot = axes(theme, "Learning rate", "epoch", "", CURVE)
    rates = [row["lr"] for row in history]
    plot.plot([row["epoch"] for row in history], rates, **_line(history), color=theme.series[3])
    if max(rates) > 20 * min(rates) > 0:
        plot.set_yscale("log")
    elif min(rates) == max(rates):
        plot.set_ylim(0, 2 * rates[0])
    plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _curves(history: Sequence[dict[str, float]], what: str, factor: float, best: int, theme: Theme) -> tuple[Any, Any]:
    figure, plot = axes(theme, {"loss": "Loss", "accuracy": "Accuracy, %"}[what], "epoch", "", CURVE)
    for stage, (label, color) in STAGES.items():
        rows = [row for row in history if f"{stage}_{what}" in row]
        if rows:
            epochs, values = [row["epoch"] for row in rows], [factor * row[f"{stage}_{what}"] for row in rows]
            plot.plot(epochs, values, **_line(history), label=label, color=theme.series[color])
            chosen = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if epoch == best]
            if stage == "val" and chosen:
                plot.scatter(*zip(*chosen, strict=True), s=42, zorder=4, color=theme.series[color], label="epoch taken")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(plot, theme)
    return figure, plot


def _line(history: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Short runs show their epochs as points, so that one epoch is seen at all."""
    return {"linewidth": 1.8, "marker": "o" if len(history) <= 20 else "", "markersize": 3.5}


def histogram(codes: CodeHistogram, title: str, theme: Theme) -> Any:
    """Share of each level: real 0 in grey, the ends of the range in the second colour. Many levels are drawn on a square-root scale."""
    levels, shares = np.array(codes.code.levels), 100 * codes.shares
    many = len(levels) > FEW_LEVELS
    figure, plot = axes(theme, "", "", "share, % (root scale)" if many else "share, %", HISTOGRAM)
    plot.set_title(title, loc="left", color=theme.text, fontsize=9)
    plot.yaxis.label.set_fontsize(8)
    plot.tick_params(labelsize=8)
    plot.grid(visible=False, axis="x")
    zero = levels == codes.zero
    ends = np.isin(levels, (levels[0], levels[-1])) & ~zero & (len(levels) > 2)  # one bit is all ends
    uniform = codes.code.alphabet != "log2"
    places = levels if uniform else np.arange(len(levels))
    width = (1.0 if many else 0.84) * (codes.code.spacing if uniform else 1)
    for chosen, color in ((~zero & ~ends, 0), (ends, 1), (zero, 5)):
        if many:
            _outline(plot, places, np.where(chosen, shares, 0.0), width, theme.series[color])
        else:
            plot.bar(places[chosen], shares[chosen], width, color=theme.series[color])
    if many:
        plot.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    plot.set_ylim(bottom=0, top=max(float(shares.max()) * 1.08, 1e-3))
    plot.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    shown = range(len(levels)) if len(levels) <= 8 else sorted({0, len(levels) // 2, len(levels) - 1})
    plot.set_xticks([places[index] for index in shown], [f"{levels[index]}".replace("-", "\u2212") for index in shown])
    return figure


def _outline(plot: Any, places: Any, shares: Any, width: float, color: str) -> None:
    """Bars that touch, as one shape: a few bytes where 256 bars would take many."""
    edges = np.append(places - width / 2, places[-1] + width / 2)
    plot.stairs(shares, edges, fill=True, color=color, linewidth=0.6, zorder=3)


def error_bars(errors: Sequence[LayerError], names: Sequence[str], theme: Theme) -> Any:
    """For each layer, by its name here, the share of its output that quantization destroys: by its weights, by its input, by both."""
    figure, plot = axes(theme, "", "share of the output's variance that is lost, %", "", (4.4, 0.9 + 0.55 * len(errors)))
    places = np.arange(len(errors))
    for offset, (label, part, color) in enumerate((("weights alone", "weights", 0), ("input alone", "input", 2), ("both", "both", 1))):
        values = [100 * getattr(row, part) for row in errors]
        bars = plot.barh(places + 0.27 * (offset - 1), values, 0.25, label=label, color=theme.series[color])
        plot.bar_label(bars, [f"{value:.2g}" if value >= 0.005 else "0" for value in values], padding=3, fontsize=8, color=theme.text)
    plot.set_yticks(places, names)
    plot.tick_params(labelsize=9)
    plot.xaxis.label.set_fontsize(9)
    plot.invert_yaxis()
    plot.grid(visible=False, axis="y")
    plot.set_xlim(0, max(100 * max(row.both for row in errors) * 1.15, 0.01))
    legend(plot, theme, loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=3, fontsize=9, handlelength=1.2, columnspacing=1.2)
    return figure
