"""Flash, memory and instructions of small nets in exported C on a Cortex-M3 and M4 under QEMU, by width, beside the same net in hand-written float C.

usage: python -m benchmarks.microcontroller [--nets digits-convnet mnist-convnet-small] [--bits W1A1 W2A2 W4A4 W8A8] [--out FILE]

Prints a Markdown table, and writes its rows as JSON lines to FILE. Nothing is trained: what a net costs does not depend on what it has learned. Instructions are
counted by an emulator (`qemu-system-arm -icount shift=0`, to 40); they are not cycles. Needs arm-none-eabi-gcc with newlib's
headers, and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

BOARDS = {
    "m3": ("mps2-an385", ["-mcpu=cortex-m3"]),
    "m4": ("mps2-an386", ["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]),
}
FLAGS = ["-mthumb", "-std=c99", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections", "-fno-tree-loop-distribute-patterns"]
SHAPES = {"digits-convnet": (8, 1, 32), "mnist-convnet-small": (28, 2, 16)}
"""Image size, pool of the first convolution and width of each net."""


def command(*words: object, cwd: Path) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def graph_of(net: str, bits: str) -> Any:
    """The net with these widths, its quantizers calibrated on random images, captured."""
    import torch

    from lobit.bits import Bits
    from lobit.capture import export
    from lobit.format import read_file
    from lobit.models import create

    torch.manual_seed(0)
    model = create(net, bits=Bits.parse(bits))
    images = torch.rand(64, 1, SHAPES[net][0], SHAPES[net][0])
    model.train()
    for _ in range(3):
        model(images)
    model.eval()
    with tempfile.TemporaryDirectory() as place:
        export(model, images[:4], f"{place}/net.lobit")
        return read_file(f"{place}/net.lobit")


def main_of(include: str, call: str, inputs: str, arena: str) -> str:
    """The program that is measured: one run, then its counts."""
    return f"""#include "{include}"
#include "lobit_test.h"
{inputs}
{arena}
static float output[10];
int main(void) {{
    lb_begin();
    {call};
    lb_end("run");
    return 0;
}}
"""


def measure(folder: Path, sources: list[str], board: str, input_bytes: int) -> dict[str, int]:
    """Build and run; flash without the input, static RAM without the 16 KiB that the linker script sets aside for the stack, stack used, instructions."""
    machine, cpu = BOARDS[board]
    support = ["board/startup.c", "board/board.c"]
    link = ["-I.", "-T", "board/mps2.ld", "-nostdlib", "-Wl,--gc-sections", "-lgcc"]
    command("arm-none-eabi-gcc", *FLAGS, *cpu, *sources, *support, *link, "-o", "net.elf", cwd=folder)
    text, data, bss = (int(n) for n in command("arm-none-eabi-size", "net.elf", cwd=folder).splitlines()[1].split()[:3])
    output = command(
        "qemu-system-arm", "-M", machine, "-icount", "shift=0", "-display", "none", "-monitor", "none", "-serial", "stdio", "-semihosting",
        "-kernel", "net.elf", cwd=folder,
    )  # fmt: skip
    found = re.search(r"measured run instructions (\d+) stack (\d+)", output)
    if found is None:
        raise SystemExit(f"the board said {output!r}")
    return {"flash": text + data - input_bytes, "ram": data + bss - 16384, "stack": int(found[2]), "instructions": int(found[1])}


def packed_rows(net: str, bits: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of one width: from codes."""
    from lobit.targets import export_c
    from lobit.targets.readme import LOOPS
    from lobit.targets.text import array

    report = export_c(graph_of(net, bits), folder)
    pixels = np.random.default_rng(0).integers(0, 256, SHAPES[net][0] ** 2).astype("u1")
    arena = "static uint32_t arena[NET_ARENA_WORDS];"
    (folder / "main.c").write_text(main_of("net.h", "net_run_codes(codes, output, arena)", array("codes", pixels), arena))
    common = {"net": net, "bits": bits, "constants": report.weight_bytes, "arena": report.arena_bytes}
    return [common | {"board": board} | measure(folder, ["main.c", "net.c", *LOOPS], board, pixels.nbytes) for board in BOARDS]


def float_rows(net: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of the float net, from a float image."""
    from lobit.targets.folder import runtime_files
    from lobit.targets.text import array

    for name, text in runtime_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    size, pool, width = SHAPES[net]
    rng, second = np.random.default_rng(0), size // pool // 2
    shapes = [9 * width, 18 * width**2, 8 * width**2 * second**2, 40 * width]
    weights = [rng.normal(size=count, scale=0.1).astype("<f4") for count in shapes]
    affine = {"scale": np.ones(4 * width, "<f4"), "shift": np.zeros(4 * width, "<f4")}
    values = max(width * (size // pool) ** 2, 2 * width * second**2, 4 * width)
    header = f"#define SIZE {size}\n#define POOL {pool}\n#define WIDTH {width}\n#define FLOAT_VALUES {values}\n"
    arrays = "".join(array(f"w{i}", w) for i, w in enumerate(weights)) + "".join(array(name, a) for name, a in affine.items())
    (folder / "float_net.h").write_text(
        header + "void float_run(const float *input, float *output);\n#ifdef FLOAT_NET\n" + arrays + "#endif\n"
    )
    (folder / "float_net.c").write_text("#define FLOAT_NET\n" + Path(__file__).with_name("float_net.c").read_text())
    pixels = rng.random(size * size, dtype=np.float32)
    (folder / "main.c").write_text(main_of("float_net.h", "float_run(input, output)", array("input", pixels), ""))
    common = {"net": net, "bits": "float32", "constants": sum(w.nbytes for w in weights) + 2 * affine["scale"].nbytes, "arena": 8 * values}
    return [common | {"board": board} | measure(folder, ["main.c", "float_net.c"], board, pixels.nbytes) for board in BOARDS]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line a net and width, both boards."""
    lines = [
        "| net | bits | flash | constants | arena | stack | M3 instructions | M4 instructions |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for m3, m4 in zip(rows[::2], rows[1::2], strict=True):
        numbers = (m3["flash"], m3["constants"], m3["arena"], max(m3["stack"], m4["stack"]), m3["instructions"], m4["instructions"])
        lines.append(f"| {m3['net']} | {m3['bits']} | " + " | ".join(f"{n:,}" for n in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--bits", nargs="+", default=["W1A1", "W2A2", "W4A4", "W8A8"])
    parser.add_argument("--out", type=Path, help="write the rows as JSON lines to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for net in options.nets:
        for bits in [*options.bits, "float32"]:
            with tempfile.TemporaryDirectory() as place:
                rows += float_rows(net, Path(place)) if bits == "float32" else packed_rows(net, bits, Path(place))
    print(command("arm-none-eabi-gcc", "--version", cwd=Path.cwd()).splitlines()[0])
    print(command("qemu-system-arm", "--version", cwd=Path.cwd()).splitlines()[0] + "\n")
    print(table(rows))
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
