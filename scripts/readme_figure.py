"""Draw the README's figure, docs/pictures/readme.svg, from the results that are committed in docs/logs.

usage: python -m scripts.readme_figure [--out FILE]

On the left the latencies of benchmark-mnist-mlp.jsonl; on the right the nets of sweep-fashion-mnist.json, accuracy against the bytes of the packed file.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from lobit.report.figures import Theme, dress, legend, write_picture
from lobit.report.sweep import SweepResult, read_result

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "docs" / "logs"
PICTURE = ROOT / "docs" / "pictures" / "readme.svg"
LATENCIES = "benchmark-mnist-mlp.jsonl"
SWEEP = "sweep-fashion-mnist.json"
PEERS = {"lobit_w1a1": "lobit W1A1", "ort_int8": "ONNX Runtime int8", "ort_fp32": "ONNX Runtime fp32", "torch_fp32": "PyTorch fp32"}


def latencies(logs: Path = LOGS) -> dict[int, dict[str, float]]:
    """Milliseconds by batch size and net."""
    rows = [json.loads(line) for line in (logs / LATENCIES).read_text().splitlines()]
    return {row["batch"]: {name: row[f"{name}_ms"] for name in PEERS} for row in rows}


def accuracies(logs: Path = LOGS) -> SweepResult:
    """The nets of the sweep."""
    return read_result(logs / SWEEP)


def title(logs: Path = LOGS) -> str:
    """What the figure shows, for those who do not see it."""
    times = latencies(logs)
    said = [
        f"at batch {batch} lobit W1A1 takes {row['lobit_w1a1']:.2g} ms, {', '.join(f'{PEERS[name]} {row[name]:.3g} ms' for name in PEERS if name != 'lobit_w1a1')}"
        for batch, row in times.items()
    ]
    best = ", ".join(f"{row.bits} {row.accuracy:.2%} in {row.file_bytes / 1000:.1f} kB" for row in accuracies(logs).front("file_bytes"))
    return (
        f"The paper's MNIST net on one thread: {'; '.join(said)}. A small net on Fashion-MNIST at all bits, the best for their size: {best}"
    )


def draw(theme: Theme, logs: Path = LOGS) -> Any:
    """The figure."""
    figure, plots = plt.subplots(1, 2, figsize=(9.6, 3.7))
    _draw_latencies(plots[0], theme, latencies(logs))
    _draw_accuracies(plots[1], theme, accuracies(logs))
    figure.tight_layout(w_pad=3)
    # a ground of its own: GitHub's setting and the system's, which colours the picture, need not agree
    figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=theme.page, zorder=-1))
    return figure


def _draw_latencies(plot: Any, theme: Theme, times: dict[int, dict[str, float]]) -> None:
    """Bars of how many times as long as lobit each net takes."""
    dress(plot, theme)
    plot.grid(visible=False)
    height = 0.8 / len(times)
    names = list(PEERS)
    for index, (batch, row) in enumerate(times.items()):
        ratios = [row[name] / row["lobit_w1a1"] for name in names]
        places = [position + (index - (len(times) - 1) / 2) * height for position in range(len(names))]
        plot.barh(places, ratios, height * 0.92, color=theme.series[index], label=f"batch {batch}")
        for place, name, ratio in zip(places, names, ratios, strict=True):
            label = f"{row[name]:.3g} ms" + ("" if name == "lobit_w1a1" else f", {ratio:.3g} ×")
            plot.annotate(label, (ratio, place), xytext=(4, 0), textcoords="offset points", va="center", color=theme.text, fontsize=8)
    plot.set_yticks(range(len(names)), [PEERS[name] for name in names])
    plot.invert_yaxis()
    plot.tick_params(axis="y", length=0)
    plot.set_xticks([])
    plot.spines["bottom"].set_visible(False)
    plot.set_xlim(0, 1.3 * max(row[name] / row["lobit_w1a1"] for row in times.values() for name in names))
    plot.set_title("Time of the paper's MNIST net, one thread", fontsize=10.5, color=theme.text)
    legend(plot, theme, loc="lower right", bbox_to_anchor=(1, 0.52), fontsize=9)


def _draw_accuracies(plot: Any, theme: Theme, result: SweepResult) -> None:
    """All nets; those that none beats for their size strong, joined and named."""
    dress(plot, theme)
    best = result.front("file_bytes")
    for rows, style in (
        (result.rows, {"s": 16, "color": theme.series[5], "alpha": 0.5}),
        (best, {"s": 34, "color": theme.series[0], "zorder": 3}),
    ):
        plot.scatter([row.file_bytes / 1000 for row in rows], [100 * row.accuracy for row in rows], linewidths=0, **style)
    plot.step(
        [row.file_bytes / 1000 for row in best], [100 * row.accuracy for row in best], where="post", color=theme.series[0], linewidth=1.2
    )
    for index, row in enumerate(best):
        beside = index + 1 < len(best) and best[index + 1].file_bytes < 1.2 * row.file_bytes  # the next one's name would meet this one's
        offset, side, height = ((7, -3), "left", "top") if beside else ((0, 6), "center", "bottom")
        place = (row.file_bytes / 1000, 100 * row.accuracy)
        plot.annotate(row.bits, place, xytext=offset, textcoords="offset points", ha=side, va=height, color=theme.text, fontsize=8)
    plot.set_xscale("log")
    plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.margins(0.1, 0.2)
    plot.set_title("Fashion-MNIST: accuracy against size, every W and A", fontsize=10.5, color=theme.text)
    plot.set_xlabel("packed file, kilobytes (log scale)", color=theme.text)
    plot.set_ylabel("test accuracy, %", color=theme.text)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PICTURE)
    write_picture(parser.parse_args().out, partial(draw, logs=LOGS), title())


if __name__ == "__main__":
    main()
