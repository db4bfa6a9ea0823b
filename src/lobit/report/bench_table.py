"""What `lobit bench` shows: tables of at most 80 columns, and a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobit.errors import ConfigError
from lobit.report.bench import LOBIT, BatchBench, BenchResult, LayerTime
from lobit.runtime.report import shorten, table

if TYPE_CHECKING:
    from lobit.report.figures import Theme

NAMES = {LOBIT: "lobit", "torch_fp32": "PyTorch fp32", "ort_fp32": "ONNX Runtime fp32", "ort_int8": "ONNX Runtime int8"}
LAYER, KERNEL = 16, 26
MOST_BARS = 16
ENDINGS = (".svg", ".png")


def bench_text(result: BenchResult) -> str:
    """The measurement as tables."""
    where = f"1 thread on core {result.core}" if result.core is not None else f"{result.threads} thread(s)"
    limits = ", ".join(f"{name} {limit:,.0f}" if limit else f"{name} not known" for name, limit in result.limits.items())
    parts = [
        "\n".join(
            [
                shorten(f"{result.path or 'a graph'}", 80),
                shorten(f"{result.machine['cpu']}; {result.isa}; {where}", 80),
                f"{result.seconds:g} s for each net and batch, all in turns in one process",
                f"limits of one core, G MAC/s: {limits}",
            ]
        ),
        _bytes(result),
    ]
    for row in result.batches:
        parts += [_timings(row), _layers(row)]
    if any("amx" in layer.kernel for row in result.batches for layer in row.layers):
        parts.append("The int8 limit is that of vector instructions; kernels on AMX tiles may pass it.")
    parts += [f"{peer} is left out: {why}" for peer, why in result.left_out.items()]
    return "\n\n".join(parts)


def _bytes(result: BenchResult) -> str:
    names = {"lobit": "file", "lobit_weights": "its weights", "float_weights": "weights in fp32"}
    body = [(names.get(key, NAMES.get(key, key)), f"{count:,}") for key, count in result.nbytes.items() if count]
    return table(("", "bytes"), body, right=(1,))


def _timings(row: BatchBench) -> str:
    body = [
        (
            NAMES.get(name, name),
            f"{timing.best_ms:.4f}",
            f"{timing.median_ms:.4f}",
            f"{row.images_per_second(name):,.0f}",
            "" if name == LOBIT else _ratio(row.ratio(name)),
        )
        for name, timing in row.timings.items()
    ]
    return table((f"batch {row.batch}", "best ms", "median ms", "samples a second", "lobit is"), body, right=(1, 2, 3, 4))


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f} x faster" if ratio >= 1 else f"{1 / ratio:.2f} x slower"


def _layers(row: BatchBench) -> str:
    body = [
        (
            shorten(layer.name, LAYER),
            shorten(layer.kernel, KERNEL),
            f"{layer.ms:.4f}",
            f"{layer.time_share:.0%}",
            f"{layer.gmacs:,.0f}" if layer.limit else "",
            _share(layer),
        )
        for layer in row.layers
    ]
    return table((f"layers at {row.batch}", "kernel", "ms", "time", "G MAC/s", "of limit"), body, right=(2, 3, 4, 5))


def _share(layer: LayerTime) -> str:
    if not layer.limit_share:
        return ""
    kind = "1-bit" if layer.limit == "one-bit" else layer.limit
    return f"{layer.limit_share:.0%} {kind}" + (f"/{layer.plane_products}" if layer.plane_products > 1 else "")


def check_picture(path: Path) -> None:
    """Refuse a picture of another kind, before any work.

    Raises
    ------
    ConfigError
        For an ending that is neither .svg nor .png, or a folder that does not exist.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"a picture ends in {' or '.join(ENDINGS)}, not {path.suffix!r}: {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {str(path.parent)!r} does not exist; create it or choose another")


def write_bench_picture(path: Path, result: BenchResult) -> None:
    """Write latencies beside the peers, and the time of each layer at the largest batch.

    Raises
    ------
    ConfigError
        As `check_picture`.
    """
    check_picture(path)
    from lobit.report.figures import write_picture

    write_picture(path, partial(_draw, result), "Latency of a packed network beside its float peers, and the time of its layers")


def _draw(result: BenchResult, theme: Theme) -> Any:
    from lobit.report.figures import axes_row, legend

    nets = list(result.batches[0].timings)
    largest = max(result.batches, key=lambda row: row.batch)
    bars = _bars(largest)
    figure, (left, right) = axes_row(theme, 2, (9.6, max(2.8, 1.3 + 0.26 * len(bars))))
    for plot in (left, right):
        plot.grid(axis="y", visible=False)
    height = 0.8 / len(result.batches)
    for index, row in enumerate(result.batches):
        places = [place + index * height for place in range(len(nets))]
        drawn = left.barh(
            places,
            [row.timings[net].best_ms for net in nets],
            height * 0.92,
            label=f"batch {row.batch}",
            color=theme.series[index % len(theme.series)],
        )
        left.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8, color=theme.text)
    left.set_yticks([place + 0.4 - height / 2 for place in range(len(nets))], [NAMES.get(net, net) for net in nets])
    left.invert_yaxis()
    left.set_xscale("log")
    left.margins(x=0.25)
    left.set_title(f"Latency, {result.threads} thread{'s' if result.threads > 1 else ''}", color=theme.text)
    left.set_xlabel("best ms a batch (log scale)", color=theme.text)
    if len(result.batches) > 1:
        legend(left, theme, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=min(len(result.batches), 4), fontsize=8)
    drawn = right.barh(range(len(bars)), [ms for _, ms, _ in bars], 0.7, color=theme.series[0])
    right.bar_label(drawn, [label for *_, label in bars], padding=3, fontsize=8, color=theme.text)
    right.set_yticks(range(len(bars)), [shorten(name, 28) for name, *_ in bars])
    right.invert_yaxis()
    right.margins(x=0.3)
    right.set_title(f"Layers of lobit, batch {largest.batch}", color=theme.text)
    right.set_xlabel("ms; share of the core's limit", color=theme.text)
    return figure


def _bars(row: BatchBench) -> list[tuple[str, float, str]]:
    """Name, milliseconds and label of the layers that take longest, in the order they run; the others together."""
    kept = sorted(sorted(range(len(row.layers)), key=lambda i: -row.layers[i].ms)[:MOST_BARS])
    bars = [(row.layers[i].name, row.layers[i].ms, _share(row.layers[i])) for i in kept]
    rest = [layer.ms for i, layer in enumerate(row.layers) if i not in kept]
    return [*bars, (f"{len(rest)} others", sum(rest), "")] if rest else bars
