"""What a measurement depends on: the processor, its features, memory, the versions. Free of torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

FEATURES = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vpopcntdq", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
PACKAGES = ("lobit", "numpy", "torch", "onnxruntime")
PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def facts() -> dict[str, Any]:
    """Processor, relevant features, cores, system and package versions."""
    lines: dict[str, str] = {}
    for line in _lines(PROC / "cpuinfo"):
        key, _, value = line.partition(":")
        lines.setdefault(key.strip(), value.strip())
    flags = set(lines.get("flags", lines.get("Features", "")).split())
    return {
        "cpu": lines.get("model name", platform.processor() or platform.machine()),
        "family_model_stepping": "/".join(lines.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cores": os.cpu_count(),
        "features": [name for name in FEATURES if name in flags],
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": {name: version(name) or "not installed" for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> tuple[int | None, int | None]:
    """Bytes of memory that the machine, or this process's control group, has, and those that are free; None where Linux does not say."""
    found = {}
    for line in _lines(PROC / "meminfo"):
        name, _, rest = line.partition(":")
        amount = rest.split()
        if amount and amount[0].isdecimal():
            found[name] = int(amount[0]) * 1024
    total, free = found.get("MemTotal"), found.get("MemAvailable")
    limit, used = (next(iter(_lines(CGROUP / name)), "") for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal() and (total is None or int(limit) < total):
        total, free = int(limit), min(max(int(limit) - int(used), 0), free if free is not None else int(limit))
    return total, free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
