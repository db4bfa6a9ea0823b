"""The digits nets and a small MNIST net, exported to C: the same bytes on x86, on AArch64, and bare metal on Cortex-M3 and M4 under QEMU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lobit.targets import export_c
from tests.targets.machine import need, run

NETS = Path(__file__).parent.parent / "targets" / "nets"
NAMES = ["digits-w1a1", "digits-w2a2", "mnist-convnet-small-w2a2"]
BOARD_TOOLS = ("make", "arm-none-eabi-gcc", "qemu-system-arm")


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported net."""
    folder = tmp_path_factory.mktemp("c") / request.param
    export_c(NETS / f"{request.param}.lobit", folder)
    return folder


def passes(output: bytes) -> str:
    text = output.decode()
    assert text.rstrip().endswith("PASS"), text
    compared = re.search(r"compared (\d+) stored values", text)
    assert compared is not None
    assert int(compared[1]) == 4 * 2 * 5  # samples, entries, layers
    return text


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_on_this_machine(exported: Path, compiler: str) -> None:
    need("make", compiler)
    run("make", "-C", exported, "clean")
    passes(run("make", "-s", "-C", exported, "test", f"CC={compiler}", "CFLAGS=-Werror"))


def test_on_aarch64(exported: Path) -> None:
    need("make", "aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    run("make", "-C", exported, "clean")
    settings = ["CROSS=aarch64-linux-gnu-", "RUN=qemu-aarch64-static", "LDFLAGS=-static", "CFLAGS=-Werror"]
    passes(run("make", "-s", "-C", exported, "test", *settings))


@pytest.mark.parametrize("optimize", ["-O2", "-Os"])
@pytest.mark.parametrize("board", ["m3", "m4"])
def test_bare_metal(exported: Path, board: str, optimize: str) -> None:
    need(*BOARD_TOOLS)
    run("make", "-C", exported, "clean")
    text = passes(run("make", "-s", "-C", exported, "board-test", f"BOARD={board}", f"OPTIMIZE={optimize}", "CFLAGS=-Werror"))
    stacks = [int(stack) for stack in re.findall(r"instructions \d+ stack (\d+)", text)]
    assert len(stacks) == 8
    assert max(stacks) < 1024


def test_bytes_with_and_without_the_dsp_instructions_are_equal_on_m4(exported: Path) -> None:
    need(*BOARD_TOOLS)
    run("make", "-C", exported, "clean")
    passes(run("make", "-s", "-C", exported, "board-test", "BOARD=m4", "CFLAGS=-Werror -DLB_NO_DSP"))


def test_no_object_of_the_network_needs_more_of_libc_than_two_functions(exported: Path) -> None:
    """memcpy and memset; the rest is libgcc's floats. No heap, no libm."""
    need("make", "arm-none-eabi-gcc", "arm-none-eabi-nm")
    run("make", "-C", exported, "clean")
    run("make", "-s", "-C", exported, "size", "CROSS=arm-none-eabi-", "CPU=-mcpu=cortex-m3 -mthumb")
    objects = sorted((exported / "build").glob("*.o"))
    symbols = run("arm-none-eabi-nm", *objects).decode()
    defined = set(re.findall(r"^[0-9a-f]+ [TRDBtrdb] (\S+)", symbols, re.M))
    wanted = set(re.findall(r"^ +U (\S+)", symbols, re.M)) - defined
    assert wanted <= {"memcpy", "memset"} | {name for name in wanted if name.startswith("__aeabi_")}, wanted
