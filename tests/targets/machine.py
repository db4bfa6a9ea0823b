"""Compiles exported networks and runs them on arrays: one program holds many nets, which read samples from standard input."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lobit.format import Graph
from lobit.targets import export_c
from lobit.targets.folder import runtime_files
from lobit.targets.lower import lower
from lobit.targets.source import C_TYPES, codes_entry, codes_type

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off"]
DTYPES = {"f32": np.float32, "i32": np.int32, "codes": np.int16}
LOOPS = ("lobit_values.c", "lobit_stages.c", "lobit_pools.c", "lobit_products.c")


def need(*tools: str) -> None:
    """Skip a test that needs a tool which is not installed; in CI, where all of them are, fail."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        message = f"{', '.join(missing)} not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def run(*command: object, stdin: bytes = b"") -> bytes:
    """Output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, (
        f"{command}\n{done.stdout[-2000:].decode(errors='replace')}\n{done.stderr[-4000:].decode(errors='replace')}"
    )
    return done.stdout


class Program:
    """Several graphs as C in one program."""

    def __init__(
        self, folder: Path, graphs: Sequence[Graph], compiler: str = "gcc", flags: Sequence[str] = ("-O1",), emulator: str = ""
    ) -> None:
        self.graphs = list(graphs)
        self.emulator = [emulator] if emulator else []
        objects = loops(folder, compiler, flags)
        sources = []
        for index, graph in enumerate(self.graphs):
            export_c(graph, folder / f"c{index}", name=f"net{index}")
            sources.append(folder / f"c{index}" / f"net{index}.c")
        main = folder / "main.c"
        main.write_text(_main(self.graphs))
        self.path = folder / "program"
        includes = [f"-I{source.parent}" for source in sources]
        run(compiler, *STRICT, *flags, *includes, *sources, main, *objects, "-o", self.path)

    def __call__(self, index: int, *inputs: np.ndarray[Any, Any], codes: bool = False) -> list[np.ndarray[Any, Any]]:
        """Outputs of one of the nets for a batch."""
        graph, batch = self.graphs[index], len(inputs[0])
        stdin = b"".join(np.ascontiguousarray(x[sample]).tobytes() for sample in range(batch) for x in inputs)
        data = run(*self.emulator, self.path, index, batch, int(codes), stdin=stdin)
        record = np.dtype([(f"v{i}", DTYPES[kind.kind], kind.shape) for i, kind in enumerate(graph.types[name] for name in graph.outputs)])
        rows = np.frombuffer(data, record)
        assert len(rows) == batch
        return [rows[field] for field in record.names or ()]


def loops(folder: Path, compiler: str, flags: Sequence[str]) -> list[Path]:
    """The loops, compiled."""
    place = folder / "loops"
    place.mkdir(exist_ok=True)
    for name, text in runtime_files().items():
        if "/" not in name:
            (place / name).write_text(text)
    objects = []
    for name in LOOPS:
        objects.append(place / name.replace(".c", ".o"))
        run(compiler, *STRICT, *flags, "-c", place / name, "-o", objects[-1])
    return objects


def _main(graphs: Sequence[Graph]) -> str:
    """Reads `index batch from_codes`, then samples from standard input; writes outputs."""
    cases = []
    for index, graph in enumerate(graphs):
        program = lower(graph)
        outs = [(C_TYPES[graph.types[name].kind], int(np.prod(graph.types[name].shape))) for name in graph.outputs]
        ins = [int(np.prod(shape)) for shape in graph.inputs.values()]
        body = "".join(f"static float x{i}[{size}];" for i, size in enumerate(ins))
        body += "".join(f"static {kind} y{i}[{size}];" for i, (kind, size) in enumerate(outs))
        body += f"static uint32_t arena[NET{index}_ARENA_WORDS]; memset(arena, 0xa5, sizeof arena);"
        results = ", ".join(f"y{i}" for i in range(len(outs)))
        floats = f"{''.join(f'get(x{i}, sizeof x{i});' for i in range(len(ins)))} status = net{index}_run({', '.join(f'x{i}' for i in range(len(ins)))}, {results}, arena);"
        entry = codes_entry(program)
        if entry is not None:
            codes = f"static {codes_type(entry.makes)} c[{ins[0]}]; get(c, sizeof c); status = net{index}_run_codes(c, {results}, arena);"
            body += f"if (from_codes) {{ {codes} }} else {{ {floats} }}"
        else:
            body += floats
        body += "if (status) exit(10 + status);" + "".join(f"fwrite(y{i}, 1, sizeof y{i}, stdout);" for i in range(len(outs)))
        cases.append(f"static void run{index}(int from_codes) {{ int status; (void)from_codes; {body} }}\n")
    includes = "".join(f'#include "net{index}.h"\n' for index in range(len(graphs)))
    table = ", ".join(f"run{index}" for index in range(len(graphs)))
    return f"""#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{includes}
static void get(void *to, size_t n) {{ if (fread(to, 1, n, stdin) != n) exit(3); }}
{"".join(cases)}
static void (*const runs[])(int) = {{{table}}};
int main(int argc, char **argv) {{
    if (argc != 4) return 4;
    for (int i = 0; i < atoi(argv[2]); i++) runs[atoi(argv[1])](atoi(argv[3]));
    return 0;
}}
"""
