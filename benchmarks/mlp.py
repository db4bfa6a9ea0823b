"""Latency of the paper's MNIST net, 3 x 4096, W1A1, packed by lobit, beside PyTorch fp32 and ONNX Runtime fp32 and int8 nets of the same shape.

usage: python -m benchmarks.mlp [--batches 1 100] [--threads 1] [--core 0] [--seconds 6] [--width 4096] [--out FILE]

The peers are the float network of the packed one's shape, batch norm folded (`lobit.report.peers`). Prints a table, then one JSON line a batch size (or writes them to FILE). Nothing is trained: weights are random, lobit's batch-norm
statistics too. All nets run in this process, in turns; the best repetition counts. The limit is that of one core, probed in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="the core to run on, with one thread")
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each net and batch size")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    return parser.parse_args()


def main() -> None:
    """Run from the command line."""
    options = arguments()
    if options.threads == 1:
        machine.pin(options.core)

    import numpy as np

    from benchmarks import packed
    from benchmarks.limits import one_bit_limit, one_bit_rates
    from lobit.format import write_file
    from lobit.report.floatnet import float_net
    from lobit.report.peers import peers
    from lobit.report.timing import alternate
    from lobit.runtime import load

    facts = machine.facts()
    print(f"{facts['cpu']} ({', '.join(facts['features'])}), {options.threads} thread(s)\n{facts['versions']}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = packed.mnist_mlp_w1a1(options.width)
        file_bytes = write_file(folder / "net.lobit", graph)
        session = load(folder / "net.lobit", threads=options.threads)
        print(session.explain(), flush=True)
        weight_bytes = sum(constant.nbytes for key, constant in graph.constants.items() if key.endswith(".weight"))
        net = float_net(graph)
        float_bytes = sum(op.arrays["weight"].nbytes for op in net.ops if "weight" in op.arrays)
        print(
            f"weights: {float_bytes} bytes in fp32, {weight_bytes} packed, {float_bytes / weight_bytes:.1f} times less; file: {file_bytes} bytes"
        )
        calibration = np.random.default_rng(0).random((100, 1, 28, 28), np.float32)
        with peers(net, [calibration], threads=options.threads) as others:
            for why in others.left_out.values():
                print(f"left out: {why}")
            for batch in options.batches:
                x = np.random.default_rng(batch).random((batch, 1, 28, 28), np.float32)
                candidates = others.runners([x])
                limit_before = one_bit_limit()
                timings = alternate({"lobit_w1a1": lambda x=x: session(x), **candidates}, options.seconds)
                limit = max(limit_before, one_bit_limit())
                report(
                    {
                        "net": f"mnist-mlp 3x{options.width}",
                        "batch": batch,
                        "threads": options.threads,
                        **{f"{key}_ms": round(timing.best_ms, 4) for key, timing in timings.items()},
                        "median_ms": {key: round(timing.median_ms, 4) for key, timing in timings.items()},
                        "times_faster_than": {key: round(timings[key].best_ms / timings["lobit_w1a1"].best_ms, 2) for key in candidates},
                        "one_bit_limit_gmacs": round(limit, 1),
                        "layers": one_bit_rates(session, x, limit),
                        "bytes": {"lobit_w1a1": file_bytes, "lobit_weights": weight_bytes, "fp32_weights": float_bytes, **others.nbytes},
                        "machine": facts,
                    },
                    options.out,
                )


def report(row: dict[str, Any], out: Path | None) -> None:
    """Print one batch size as a table, and as a JSON line."""
    print(f"\n{row['net']}, batch {row['batch']}, {row['threads']} thread(s)\n{'net':<14}{'best ms':>12}{'median ms':>12}{'lobit is':>16}")
    for key, median in row["median_ms"].items():
        ratio = row["times_faster_than"].get(key)
        print(f"{key:<14}{row[f'{key}_ms']:>12.3f}{median:>12.3f}" + (f"{ratio:>9.1f} x faster" if ratio else ""))
    print(f"one-bit limit of this core: {row['one_bit_limit_gmacs']:.0f} G MAC/s")
    for layer in row["layers"]:
        print(f"  {layer['layer']:<12}{layer['ms']:>10.3f} ms  {layer['gmacs']:>8.0f} G one-bit MAC/s  {layer['share']:>6.1%} of the limit")
    line = json.dumps(row)
    if out is None:
        print(line, flush=True)
    else:
        with out.open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
