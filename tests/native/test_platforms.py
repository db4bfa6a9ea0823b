"""Machines that the engine does not run on are refused with the reason, when it is compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compiler() -> str:
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no C compiler: gcc or cc")
    return found


def preprocess(compiler: str, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [compiler, *flags, "-E", "-I", str(ROOT / "native" / "kernels"), "-x", "c", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


def test_a_big_endian_machine_is_refused_with_the_reason(compiler: str) -> None:
    done = preprocess(compiler, '#include "kernel.h"\n', "-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__", "-w")
    assert done.returncode != 0
    assert "lobit runs on little-endian processors only" in done.stderr
    assert preprocess(compiler, '#include "kernel.h"\n').returncode == 0


@pytest.mark.parametrize("file", ["kernels/product.h", "engine/elementwise.h", "engine/loops.c", "kernels/table.c", "kernels/probe.c"])
def test_a_generic_build_knows_no_vector_kernel(compiler: str, file: str) -> None:
    source = (ROOT / "native" / file).read_text()
    done = preprocess(compiler, source, "-DLOBIT_GENERIC", "-I", str(ROOT / "native" / "engine"))
    assert done.returncode == 0, done.stderr
    assert "avx2" not in done.stdout.replace('"avx2"', "")  # the name of an instruction set stays, for messages
