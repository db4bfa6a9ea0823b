"""The pictures of a sweep, and its page: one file, with the pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lobit.report.figures import Drawing, Theme, axes, inline_svg, write_picture
from lobit.report.page import write_page as write_html
from lobit.report.sweep.result import SweepResult, SweepRow
from lobit.report.sweep.table import by_bits, chance, columns, notes, percent, seeds_of

BANDS = ((0, "text"), (1, "text"), (3, "page"), (4, "page"))
"""Steps of the ramp for a heat map, and what is written on each: the middle step is left out, since neither colour is readable on it in both themes."""


def pictures(result: SweepResult) -> dict[str, tuple[Drawing, str]]:
    """The drawings by name, each with what it shows."""
    return {
        "heatmap": (partial(_heat_map, result), "Test accuracy by bits of weights and activations"),
        "pareto": (
            partial(_curve, result, "file_bytes", 1e-3, "packed file, kilobytes (log scale)"),
            "Accuracy against the size of the packed file",
        ),
        "energy": (
            partial(_curve, result, "joules", 1e9, "estimated energy of one image, nJ (log scale)"),
            "Accuracy against estimated energy",
        ),
    }


def write_pictures(result: SweepResult, folder: Path, prefix: str = "") -> None:
    """Write ``heatmap.svg``, ``pareto.svg`` and ``energy.svg``."""
    for name, (draw, title) in pictures(result).items():
        write_picture(folder / f"{prefix}{name}.svg", draw, title)


def write_page(result: SweepResult, path: Path) -> None:
    """Write the page."""
    figures = {name: inline_svg(draw, title) for name, (draw, title) in pictures(result).items()}
    shown = columns(result)
    rows = [([value(row) for _, value in shown], row) for row in result.rows]
    write_html(path, "sweep_page", result=result, heads=[head for head, _ in shown], rows=rows, figures=figures, notes=notes(result))


def _heat_map(result: SweepResult, theme: Theme) -> Any:
    weights, activations = result.weights, result.activations
    figure, plot = axes(
        theme, "Test accuracy, %", "bits of activations", "bits of weights", (1.6 + 0.8 * len(activations), 1.2 + 0.55 * len(weights))
    )
    plot.grid(visible=False)
    high = max(row.accuracy for row in result.rows)
    low = min(*(row.accuracy for row in result.rows), high - 2 * chance(result)[1])  # strong contrasts are for more than chance
    for (w, a), row in by_bits(result).items():
        x, y = activations.index(a), weights.index(w)
        band = min(int((row.accuracy - low) / (high - low) * len(BANDS)), len(BANDS) - 1)
        step, ink = BANDS[band]
        plot.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=theme.ramp[step], edgecolor=theme.line, linewidth=0.6))
        plot.text(x, y, percent(row.accuracy), ha="center", va="center", color=getattr(theme, ink), fontsize=10)
    plot.set_xlim(-0.5, len(activations) - 0.5)
    plot.set_ylim(len(weights) - 0.5, -0.5)
    plot.set_xticks(range(len(activations)), [str(a) for a in activations])
    plot.set_yticks(range(len(weights)), [str(w) for w in weights])
    plot.tick_params(length=0)
    plot.spines[["left", "bottom"]].set_visible(False)
    return figure


def _curve(result: SweepResult, cost: str, unit: float, label: str, theme: Theme) -> Any:
    """All nets as points; those on the front strong, joined by steps and named."""
    seeds = seeds_of(result)
    figure, plot = axes(
        theme, f"Accuracy against {'size' if cost == 'file_bytes' else 'energy'}", label, "test accuracy, packed, %", (6.4, 3.8)
    )
    front = result.front(cost)
    beaten = [row for row in result.rows if row not in front]
    plot.scatter(_x(beaten, cost, unit), _y(beaten), color=theme.series[5], alpha=0.45, s=22, linewidths=0, zorder=2)
    plot.step(_x(front, cost, unit), _y(front), where="post", color=theme.series[0], linewidth=1.2, zorder=3)
    plot.scatter(_x(front, cost, unit), _y(front), color=theme.series[0], s=42, zorder=4)
    if seeds > 1:
        for row in front:
            plot.plot(
                [getattr(row, cost) * unit] * 2,
                [100 * row.accuracy_low, 100 * row.accuracy_high],
                color=theme.series[0],
                linewidth=0.8,
                zorder=3,
            )
    _name(plot, front, _x(front, cost, unit), theme)
    plot.set_xscale("log")
    plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.margins(0.12)
    return figure


def _name(plot: Any, rows: Sequence[SweepRow], x: Sequence[float], theme: Theme) -> None:
    """Bits beside the points, by turns above to the left, where the steps leave room, and below to the right."""
    for index, (row, place) in enumerate(zip(rows, x, strict=True)):
        left = index % 2 == 0
        offset, side, level = ((-5, 4), "right", "bottom") if left else ((6, -4), "left", "top")
        plot.annotate(
            row.bits,
            (place, 100 * row.accuracy),
            xytext=offset,
            textcoords="offset points",
            ha=side,
            va=level,
            color=theme.text,
            fontsize=9,
            bbox={"facecolor": theme.page, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def _x(rows: Sequence[SweepRow], cost: str, unit: float) -> list[float]:
    return [getattr(row, cost) * unit for row in rows]


def _y(rows: Sequence[SweepRow]) -> list[float]:
    return [100 * row.accuracy for row in rows]
