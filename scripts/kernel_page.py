"""Write the tables of docs/kernels.md from the kernel table and from the committed measurements.

usage: python -m scripts.kernel_page
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lobit.atomic import atomic_file
from lobit.runtime import Kernel, kernels

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "kernels.md"
LOG = DOCS / "logs" / "benchmark-mnist-mlp.jsonl"
LOOP_MEANING = {
    "stage": "thresholds and chains, to codes or floats",
    "max_pool": "max pooling",
    "avg_pool": "average pooling",
    "add": "residual addition",
    "pack": "codes from one carrier to the other",
    "float_product": "float layers, inexact",
    "transpose": "PyTorch's layout to channels-last and back",
    "copy": "padding, regrouping, concatenation and resizing",
}


def tables() -> dict[str, str]:
    """The generated parts of the page by name."""
    return {"products": _products(), "break-even": _break_even(), "loops": _loops(), "measured": _measured()}


def _products() -> str:
    lines = ["| kernel | operation on a word | tile, rows x channels | MACs a cycle | needs |", "| --- | --- | --- | --- | --- |"]
    words = {"xor": "`popcount(x ^ w)`", "and": "`popcount(x & w)`", "dot8": "4 products u8 x s8"}
    for kernel in kernels():
        if kernel.rows:
            needs = ", ".join(part for part in (kernel.isa, kernel.needs) if part)
            lines.append(
                f"| `{kernel.name}` | {words[kernel.op]} | {kernel.rows} x {kernel.columns} | {kernel.macs_per_cycle:g} | {needs} |"
            )
    return "\n".join(lines)


def break_even(isa: str) -> int:
    """Largest product of both widths for which bit planes are taken: they cost (bits of x) * (bits of w) one-bit products, bytes one product."""

    def speed(op: str) -> float:
        return next(kernel.macs_per_cycle for kernel in kernels() if kernel.op == op and kernel.isa == isa)

    return int(speed("xor") / speed("dot8"))


def _break_even() -> str:
    lines = ["| instruction set | planes are taken up to bits of x times bits of w |", "| --- | --- |"]
    lines += [f"| {isa} | {break_even(isa)} |" for isa in dict.fromkeys(kernel.isa for kernel in kernels() if kernel.op == "xor")]
    return "\n".join(lines)


def _loops() -> str:
    loops: dict[str, list[Kernel]] = {}
    for kernel in kernels():
        if not kernel.rows:
            loops.setdefault(kernel.op, []).append(kernel)
    lines = ["| loop | does | compiled for |", "| --- | --- | --- |"]
    lines += [f"| `{op}` | {LOOP_MEANING[op]} | {', '.join(kernel.isa for kernel in rows)} |" for op, rows in loops.items()]
    return "\n".join(lines)


def _measured() -> str:
    rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    lines = ["| batch | layer | kernel | ms | 10^9 MACs a second | probe | share |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        lines += [
            f"| {row['batch']} | {layer['layer']} | `{layer['kernel']}` | {layer['ms']:.2f} | {layer['gmacs']:.0f} | {row['one_bit_limit_gmacs']:.0f} | "
            f"{layer['share']:.0%} |"
            for layer in row["layers"]
        ]
    machine = rows[0]["machine"]
    features = ", ".join(name for name in machine["features"] if name.startswith(("avx512_vpop", "amx", "avx512f")))
    return "\n".join([*lines, "", f"{machine['cpu']} ({features}), {rows[0]['threads']} thread, {len(rows)} batch sizes in one run."])


def with_tables(page: str) -> str:
    """The page with its generated parts replaced."""
    for name, table in tables().items():
        page, count = re.subn(
            rf"(<!-- {name}: [^\n]*-->\n).*?(\n<!-- /{name} -->)",
            lambda match, table=table: match[1] + "\n" + table + "\n" + match[2],
            page,
            flags=re.S,
        )
        if count != 1:
            raise SystemExit(f"{PAGE} must have one place for {name}, not {count}")
    return page


def main() -> None:
    """Run from the command line."""
    page = with_tables(PAGE.read_text())
    with atomic_file(PAGE) as stream:
        stream.write(page.encode())


if __name__ == "__main__":
    main()
