"""Draw the README's figure, docs/pictures/readme.svg, from the results that are committed in docs/logs.

usage: python -m scripts.readme_figure [--out FILE]

On the left the latencies of benchmark-mnist-mlp.jsonl; on the right, where docs/logs holds the result of a sweep, accuracy against the bytes of the packed file.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from lobit.report.figures import Theme, dress, legend, write_picture

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "docs" / "logs"
PICTURE = ROOT / "docs" / "pictures" / "readme.svg"
LATENCIES = "benchmark-mnist-mlp.jsonl"
PEERS = {"lobit_w1a1": "lobit W1A1", "ort_int8": "ONNX Runtime int8", "ort_fp32": "ONNX Runtime fp32", "torch_fp32": "PyTorch fp32"}


@dataclass(frozen=True)
class Point:
    """A net of a sweep: its bits, the bytes of its packed file, its share of right answers."""

    bits: str
    bytes: int
    accuracy: float


def latencies(logs: Path = LOGS) -> dict[int, dict[str, float]]:
    """Milliseconds by batch size and net."""
    rows = [json.loads(line) for line in (logs / LATENCIES).read_text().splitlines()]
    return {row["batch"]: {name: row[f"{name}_ms"] for name in PEERS} for row in rows}


def sweeps(logs: Path = LOGS) -> dict[str, list[Point]]:
    """The points of each committed sweep by the name of its recipe."""
    found = {}
    for path in sorted(logs.rglob("*.json")):
        result = json.loads(path.read_text())
        if isinstance(result, dict) and "sweep" in result:
            found[result["name"]] = [
                Point(f"W{row['weights']}A{row['activations']}", row["file_bytes"], row["accuracy"]) for row in result["rows"]
            ]
    return found


def front(points: list[Point]) -> list[Point]:
    """The points that none beats: by rising bytes, each more accurate than all before."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def title(logs: Path = LOGS) -> str:
    """What the figure shows, for those who do not see it."""
    times = latencies(logs)
    said = [
        f"at batch {batch} lobit W1A1 takes {row['lobit_w1a1']:.2g} ms, {', '.join(f'{PEERS[name]} {row[name]:.3g} ms' for name in PEERS if name != 'lobit_w1a1')}"
        for batch, row in times.items()
    ]
    found = f"; accuracy against bytes of {' and '.join(sweeps(logs))}" if sweeps(logs) else ""
    return f"The paper's MNIST net on one thread: {'; '.join(said)}{found}"


def draw(theme: Theme, logs: Path = LOGS) -> Any:
    """The figure."""
    found = sweeps(logs)
    figure, plots = plt.subplots(1, 2 if found else 1, figsize=(9.6, 3.7) if found else (6.6, 3.4), squeeze=False)
    _draw_latencies(plots[0][0], theme, latencies(logs))
    if found:
        _draw_sweeps(plots[0][1], theme, found)
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


def _draw_sweeps(plot: Any, theme: Theme, found: dict[str, list[Point]]) -> None:
    """All nets of each sweep; those that none beats strong and joined."""
    dress(plot, theme)
    for index, (name, points) in enumerate(found.items()):
        color, best = theme.series[index], front(points)
        plot.scatter([p.bytes / 1000 for p in points], [100 * p.accuracy for p in points], s=16, color=color, alpha=0.35, linewidths=0)
        plot.step([p.bytes / 1000 for p in best], [100 * p.accuracy for p in best], where="post", color=color, linewidth=1.2)
        plot.scatter([p.bytes / 1000 for p in best], [100 * p.accuracy for p in best], s=34, color=color, label=name, zorder=3)
        for point in {
            point.bits.split("A")[0]: point for point in best
        }.values():  # the best of each width of weights: their sizes are close
            place = (point.bytes / 1000, 100 * point.accuracy)
            plot.annotate(point.bits, place, xytext=(0, 6), textcoords="offset points", ha="center", color=theme.text, fontsize=8)
    plot.set_xscale("log")
    plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.margins(0.1, 0.2)
    plot.set_title("Accuracy against size, every W and A", fontsize=10.5, color=theme.text)
    plot.set_xlabel("packed file, kilobytes (log scale)", color=theme.text)
    plot.set_ylabel("test accuracy, %", color=theme.text)
    legend(plot, theme, loc="lower right", fontsize=8.5)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PICTURE)
    write_picture(parser.parse_args().out, partial(draw, logs=LOGS), title())


if __name__ == "__main__":
    main()
