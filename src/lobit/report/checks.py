"""The single checks of `lobit doctor`: each looks at one thing and says what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import lobit
from lobit.errors import LobitError
from lobit.report.machine import facts, memory_bytes, usable_cores, version
from lobit.report.packages import EXTRAS, Package, packages
from lobit.report.rapl import find_zones

State = Literal["ok", "missing", "broken"]
LEAST_PYTHON = (3, 11)
REINSTALL = "install lobit again: pip install --force-reinstall --no-deps lobit; in a clone of it: make setup"
TOOLS = {
    "gcc": "gcc libc6-dev",
    "clang": "clang",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "qemu-aarch64-static": "qemu-user-static",
}
"""What builds and tests an exported net in C, here and for other processors, and the packages of Debian and Ubuntu that bring it."""
TOOL_SECONDS = 10
ALWAYS_NEEDED = tuple(Package(name, "0", version(name)) for name in ("numpy", "safetensors"))
"""What lobit imports, where its own metadata is not installed."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing: whether it is there (``broken`` where lobit cannot do without it), what was found, and what to do."""

    name: str
    state: State
    found: str
    remedy: str = ""


def essentials() -> Iterator[Check]:
    """Python, lobit, the two packages that it always needs, and its native module."""
    yield Check("lobit", "ok", f"{lobit.__version__}, {Path(lobit.__file__).parent}")
    python = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info >= LEAST_PYTHON:
        yield Check("Python", "ok", python)
    else:
        yield Check("Python", "broken", python, "lobit needs Python 3.11 or later")
    for package in packages() or ALWAYS_NEEDED:
        why = _import_error(package.name) if package.fits else f"lobit needs {package.name} {package.least}, this is {package.installed}"
        if why:
            yield Check(package.name, "broken", why, f"pip install --upgrade '{package.name}>={package.least}'")
        else:
            yield Check(package.name, "ok", str(package.installed))
    why = _import_error("lobit._native")
    if why:
        yield Check("native module", "broken", why, REINSTALL)
    else:
        yield Check("native module", "ok", Path(str(sys.modules["lobit._native"].__file__)).name)


def processor() -> Iterator[Check]:
    """Processor, cores, memory, instruction sets and which of them sessions use."""
    found = facts()
    yield Check("processor", "ok", f"{found['cpu']} ({platform.machine()}), {usable_cores()} of {found['cores']} cores usable")
    total, free = memory_bytes()
    if total is not None and free is not None:
        yield Check("memory", "ok", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
    yield Check("features", "ok", " ".join(found["features"]) or "none that lobit knows")
    try:
        from lobit.runtime.hardware import choose_isa, isas
    except ImportError:
        return  # the native module is broken; `essentials` says so
    fast = [isa for isa in isas() if isa != "scalar"]
    slow = "" if fast else "; networks run, but slowly: lobit has no faster kernels for this processor"
    yield Check("instruction sets", "ok", ", ".join(isas()) + slow)
    wanted = os.environ.get("LOBIT_ISA") or None
    try:
        chosen = choose_isa(None)
    except LobitError as error:
        yield Check("LOBIT_ISA", "broken", str(error), f"unset LOBIT_ISA, or set it to one of {', '.join(isas())}")
    else:
        yield Check("LOBIT_ISA", "ok", f"{wanted}" if wanted else f"not set; sessions use the best, {chosen}")


def self_test() -> Iterator[Check]:
    """Whether each instruction set computes what numpy does."""
    try:
        from lobit.report.self_test import wrong_isas
    except ImportError:
        return
    wrong = wrong_isas()
    if wrong:
        yield Check("self-test", "broken", "; ".join(f"{isa}: {why}" for isa, why in wrong.items()), REINSTALL)
    else:
        yield Check("self-test", "ok", "the sums of every instruction set equal numpy's")


def data_sets() -> Iterator[Check]:
    """``LOBIT_DATA`` and the data sets in it or in the cache; they are looked for, not read."""
    try:
        from lobit.data import DATA_SETS, PLACES
    except ImportError:
        return  # numpy is broken; `essentials` says so
    given = os.environ.get("LOBIT_DATA") or None
    if given is None:
        yield Check("LOBIT_DATA", "ok", "not set; data sets are looked for, and downloaded to, the user's cache")
    elif Path(given).is_dir():
        yield Check("LOBIT_DATA", "ok", given)
    else:
        yield Check("LOBIT_DATA", "missing", f"{given} is no folder", "create it, or name another: export LOBIT_DATA=/path/to/data")
    for name in DATA_SETS:
        try:
            place = PLACES[name](None if given is None else Path(given)) if name in PLACES else None
        except (OSError, RuntimeError) as error:  # a folder that may not be read, a user without a home
            yield Check(name, "missing", str(error), "name a folder that may be read with LOBIT_DATA")
            continue
        if place is not None:
            yield Check(name, "ok", str(place))
        else:
            yield Check(
                name,
                "missing",
                "not found",
                "it is downloaded when a recipe first needs it, or name a folder that holds it with LOBIT_DATA",
            )


def extras() -> Iterator[Check]:
    """The optional packages, by extra."""
    for extra in EXTRAS:
        asked = packages(extra)
        if asked is None:
            yield Check("extras", "missing", "not known: this is a source tree that was not installed", "in it: pip install '.[train]'")
            return
        there = ", ".join(str(package) for package in asked if package.fits)
        lacking = ", ".join(str(package) for package in asked if not package.fits)
        if lacking:
            yield Check(extra, "missing", f"{lacking}" + (f"; there are {there}" if there else ""), f"pip install 'lobit[{extra}]'")
        else:
            yield Check(extra, "ok", there)


def tools() -> Iterator[Check]:
    """Compilers and emulators for nets exported to C."""
    for tool, debian in TOOLS.items():
        path = shutil.which(tool)
        if path is None:
            yield Check(tool, "missing", "not found", f"apt-get install {debian}")
        else:
            yield Check(tool, "ok", _first_line(path))


def energy() -> Iterator[Check]:
    """The energy counters that `lobit summary --measure` reads."""
    try:
        zones = find_zones()
    except LobitError as error:
        yield Check("RAPL", "missing", str(error))
    else:
        yield Check("RAPL", "ok", ", ".join(zone.name for zone in zones))


def _import_error(module: str) -> str:
    """Why a module cannot be imported; empty where it can."""
    try:
        import_module(module)
    except Exception as error:  # a damaged package raises what it likes
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _first_line(path: str) -> str:
    """What a tool says of its version; its path where it says nothing."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return f"{path} (does not say its version)"
    return next(iter(done.stdout.splitlines()), path).strip()
