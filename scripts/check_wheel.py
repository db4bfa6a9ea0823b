"""Check an installed wheel, all without torch: bare import, every golden file gives its stored outputs, the doctor finds nothing broken.

usage: python scripts/check_wheel.py tests/golden [--generic]      (with the Python of an environment that has lobit, numpy and safetensors alone)

``--generic`` expects a build with the scalar kernels alone.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MAX_IMPORT_SECONDS = 0.2


def check_import() -> None:
    """`import lobit` is quick and leaves torch alone."""
    if importlib.util.find_spec("torch") is not None:
        sys.exit("torch is installed here: this environment proves nothing")
    code = "import time; t = time.perf_counter(); import lobit; print(time.perf_counter() - t)"
    times = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    print(f"import lobit: {min(times):.3f} s")
    if min(times) >= MAX_IMPORT_SECONDS:
        sys.exit(f"import lobit takes {min(times):.2f} s; it must stay under {MAX_IMPORT_SECONDS} s")


def check_missing_extra() -> None:
    """What needs torch says which extra brings it."""
    import lobit

    try:
        lobit.quantize_  # noqa: B018  # the attribute itself loads torch
    except (ImportError, lobit.LobitError) as error:
        if "pip install" not in str(error):
            sys.exit(f"lobit.quantize_ without torch should name the pip install line; it says: {error}")
        print(f"lobit.quantize_ without torch: {error}")
    else:
        sys.exit("lobit.quantize_ loads without torch: this environment proves nothing")


def check_vector_kernels() -> None:
    """The vector kernels run wherever Linux lists what they need: a build must not lose the detection of the processor."""
    from lobit.runtime import isas

    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = set(next((line.partition(":")[2] for line in listed.splitlines() if line.startswith("flags")), "").split())
    needs = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}}
    lost = [isa for isa, wanted in needs.items() if wanted <= flags and isa not in isas()]
    if lost:
        sys.exit(f"this processor has {', '.join(lost)}, but lobit finds {', '.join(isas())} alone")


def check_golden(path: Path) -> None:
    """A file of the tests gives, bit for bit, the outputs stored beside it, with every instruction set of this machine."""
    import lobit
    from lobit.runtime import isas

    stored = np.load(path.with_suffix(".npz"), allow_pickle=False)
    for isa in isas():
        session = lobit.load(path, isa=isa)
        np.testing.assert_array_equal(session(stored["x"]), stored["y"])
    print(
        f"{path.name}: {len(stored['x'])} samples equal to the stored outputs with {', '.join(isas())}\n{session.explain()}\n{lobit.summary(path)}"
    )


def check_doctor() -> None:
    """The doctor needs nothing but lobit itself, and finds nothing broken."""
    from lobit.report.doctor import diagnose

    found = diagnose()
    print(found)
    if not found.ok:
        sys.exit("the doctor finds something broken")


def check_export_to_c(path: Path) -> None:
    """The wheel holds the C files that exported networks need, and writes a network without torch."""
    from lobit.targets import export_c

    with tempfile.TemporaryDirectory() as place:
        print(export_c(path, f"{place}/c"))
        if not Path(place, "c", "lobit_products.c").exists():
            sys.exit("exported C lacks its loops")


def main() -> None:
    """Run from the command line."""
    from lobit.runtime import isas

    files = sorted(Path(sys.argv[1]).glob("*.lobit"))
    if not files:
        sys.exit(f"no .lobit file in {sys.argv[1]}")
    check_import()
    check_missing_extra()
    if "--generic" not in sys.argv:
        check_vector_kernels()
    elif isas() != ("scalar",):
        sys.exit(f"a generic build has the scalar kernels alone, not {', '.join(isas())}")
    for path in files:
        check_golden(path)
        check_export_to_c(path)
    check_doctor()
    if "torch" in sys.modules:
        sys.exit("running a packed file imported torch")


if __name__ == "__main__":
    main()
