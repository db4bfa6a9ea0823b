"""Time and memory of a training step.

usage: python -m benchmarks.training [--nets cifar10-convnet resnet18 lstm-lm lstm] [--variants ...] [--threads 2] [--seconds 20] [--keep-memory] [--out FILE]

All variants of a net run in this process, in turns; the best repetition counts, and the ratio to PyTorch fp32 is of best to best. Memory is measured in a
process of its own for each: the highest resident memory of three steps, less what the interpreter and its packages took before the net was made.
A variant that does not take a net is left out and named. Nothing is learned: data are random. Compiling unrolls recurrent layers: their compiled variants take minutes
before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BASE = "torch fp32"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", nargs="+")
    parser.add_argument("--variants", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each variant of a net")
    parser.add_argument("--keep-memory", action="store_true", help="let the process keep freed memory, for all variants")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    parser.add_argument("--memory-of", nargs=2, metavar=("NET", "VARIANT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run from the command line."""
    options = arguments()
    import torch

    from benchmarks import machine
    from benchmarks.training.nets import TASKS
    from benchmarks.training.variants import VARIANTS

    torch.set_num_threads(options.threads)
    if options.keep_memory:
        from lobit.training import keep_freed_memory

        keep_freed_memory()
    if options.memory_of:
        print(json.dumps(memory(*options.memory_of)))
        return
    facts = machine.facts()
    print(f"{facts['cpu']} ({', '.join(facts['features'])}), {options.threads} thread(s)\n{facts['versions']}", flush=True)
    for name in options.nets or TASKS:
        rows = measure(name, options.variants or list(VARIANTS), options.seconds, options.threads)
        show(name, rows)
        if options.out:
            with options.out.open("a") as file:
                for row in rows:
                    file.write(json.dumps({**row, "threads": options.threads, "keep_memory": options.keep_memory, "machine": facts}) + "\n")


def measure(net: str, names: list[str], seconds: float, threads: int) -> list[dict[str, Any]]:
    """Times of all variants in turns, then memory of each."""
    import torch

    from benchmarks.training.nets import TASKS
    from benchmarks.training.variants import VARIANTS, make_step
    from lobit.report.timing import alternate

    task = TASKS[net]
    torch.manual_seed(1)
    model, (x, labels) = task.make(), task.batch()
    steps = {}
    for name in names:
        try:
            steps[name] = make_step(VARIANTS[name], model, x, labels)
            steps[name]()
        except Exception as error:  # of a peer, or a layer that a library does not have
            steps.pop(name, None)
            print(f"{net}: {name} left out: {type(error).__name__}: {str(error).splitlines()[0][:160]}", flush=True)
    timings = alternate(steps, seconds)
    rows: list[dict[str, Any]] = []
    for name, timing in timings.items():
        row: dict[str, Any] = {"net": net, "variant": name, "best_ms": timing.best_ms, "median_ms": timing.median_ms}
        row["samples_per_s"] = 1e3 * (x.shape[1] if net.startswith("lstm") else len(x)) / timing.best_ms
        row |= memory_apart(net, name, threads)
        rows.append(row)
    base = next((row for row in rows if row["variant"] == BASE), None)
    for row in rows:
        if base:
            row["time_ratio"] = row["best_ms"] / base["best_ms"]
            row["memory_ratio"] = row["peak_bytes"] / base["peak_bytes"]
            row["resident_ratio"] = row["resident_bytes"] / base["resident_bytes"]
    return rows


MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "MALLOC_MMAP_MAX_": "1000000"}
"""Settings of glibc with which every tensor of 256 KiB or more is mapped by itself, so that the peak is of memory in use."""


def memory_apart(net: str, variant: str, threads: int) -> dict[str, int]:
    """`memory` in processes of their own: of memory in use, and as glibc has it by default, with holes between tensors that differ by 10 % between runs."""
    command = [sys.executable, "-m", "benchmarks.training", "--threads", str(threads), "--memory-of", net, variant]
    found = {}
    for name, settings in (("peak_bytes", MAPPED), ("resident_bytes", {})):
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
        found[name] = json.loads(done.stdout.splitlines()[-1])["peak_bytes"]
    return found


def memory(net: str, variant: str) -> dict[str, Any]:
    """Peak of resident memory over three steps, above what was resident before the net was made."""
    import torch

    from benchmarks.training.nets import TASKS
    from benchmarks.training.variants import VARIANTS, make_step

    task, how = TASKS[net], VARIANTS[variant]
    warm = torch.nn.Conv2d(3, 8, 3)(torch.rand(2, 3, 16, 16, requires_grad=True))  # libraries load what they load at first use
    warm.sum().backward()
    del warm
    before = _status("VmRSS")
    step = make_step(how, task.make(), *task.batch())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        step()
    return {"peak_bytes": _status("VmHWM") - before}


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def show(net: str, rows: list[dict[str, Any]]) -> None:
    """Print a net's table."""
    print(f"\n{net}\n{'':<22} {'best ms':>9} {'median':>9} {'ratio':>6} {'peak MB':>9} {'ratio':>6} {'resident':>9} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['variant']:<22} {row['best_ms']:>9.1f} {row['median_ms']:>9.1f} {row.get('time_ratio', 0):>6.2f} "
            f"{row['peak_bytes'] / 1e6:>9.0f} {row.get('memory_ratio', 0):>6.2f} "
            f"{row['resident_bytes'] / 1e6:>9.0f} {row.get('resident_ratio', 0):>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
