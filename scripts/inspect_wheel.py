"""Inspect a manylinux wheel: its tags, its files and what its native module asks of the system. Needs pyelftools, which auditwheel brings.

usage: python scripts/inspect_wheel.py --glibc 2.17 dist/lobit-*.whl
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}
"""All of glibc, nothing else."""
TAGS = re.compile(r"lobit-[\d.]+-(cp311-cp311|cp312-abi3)-(manylinux\w+_x86_64\.)*manylinux_\d+_\d+_x86_64")

FOLDERS = {"src/lobit": "lobit", "native/embedded": "lobit/embedded"}
"""Folders of the source, and where the wheel has them."""


def expected_files() -> set[str]:
    """The files of the package and the loops of exported C, as git knows them; as they lie there in a tree without git."""
    listed = subprocess.run(["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        found = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    else:
        found = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    places = {name: folder for name in found for folder in FOLDERS if name.startswith(f"{folder}/")}
    return {FOLDERS[folder] + name.removeprefix(folder) for name, folder in places.items() if Path(name).suffix not in {".so", ".pyc"}}


def check_tag(wheel: Path, glibc: tuple[int, ...]) -> None:
    """The name says which Python and which glibc."""
    match = TAGS.fullmatch(wheel.stem)
    if match is None:
        sys.exit(f"{wheel.name}: the tag must be cp311-cp311 or cp312-abi3 and manylinux_.._x86_64")
    lowest = min(tuple(map(int, pair)) for pair in re.findall(r"manylinux_(\d+)_(\d+)", wheel.stem))
    if lowest > glibc:
        sys.exit(f"{wheel.name}: needs glibc {lowest}, wanted {glibc}")


def check_files(wheel: Path, names: list[str]) -> str:
    """Exactly the package's files, one native module and the metadata; returns the module's name."""
    native = [name for name in names if name.endswith(".so")]
    if len(native) != 1 or not re.fullmatch(r"lobit/_native\.(abi3|cpython-311-x86_64-linux-gnu)\.so", native[0]):
        sys.exit(f"{wheel.name}: native modules are {native}; it should hold lobit/_native alone")
    info = {name for name in names if re.match(r"lobit-[\d.]+\.dist-info/", name)}
    own = set(names) - info - set(native)
    if missing := expected_files() - own:
        sys.exit(f"{wheel.name} lacks {sorted(missing)}")
    if stray := own - expected_files():
        sys.exit(f"{wheel.name} holds what is not of the package: {sorted(stray)}")
    if not any(name.endswith("LICENSE") for name in info):
        sys.exit(f"{wheel.name} has no licence")
    return native[0]


def check_module(wheel: Path, data: bytes, glibc: tuple[int, ...]) -> None:
    """It needs glibc alone, of that version at most, and shows Python's entry point alone."""
    elf = ELFFile(io.BytesIO(data))
    dynamic, symbols = elf.get_section_by_name(".dynamic"), elf.get_section_by_name(".dynsym")
    needed = {tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"}
    if needed - SYSTEM:
        sys.exit(f"{wheel.name}: the module needs {sorted(needed - SYSTEM)}, which is no part of glibc")
    asked = {aux.name for _, list_ in elf.get_section_by_name(".gnu.version_r").iter_versions() for aux in list_}
    newer = [name for name in asked if not name.startswith("GLIBC_") or tuple(map(int, name[6:].split("."))) > glibc]
    if newer:
        sys.exit(f"{wheel.name}: the module asks for {sorted(newer)}")
    shown = {
        s.name for s in symbols.iter_symbols() if s.entry.st_shndx != "SHN_UNDEF" and s.entry.st_info.bind in {"STB_GLOBAL", "STB_WEAK"}
    }
    if shown != {"PyInit__native"}:
        sys.exit(f"{wheel.name}: the module shows {sorted(shown)}; it should show PyInit__native alone")
    print(f"  module: {len(data)} bytes; needs {', '.join(sorted(needed))}; symbols of {', '.join(sorted(asked))}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glibc", required=True, help="the oldest glibc that it must run on, such as 2.17")
    parser.add_argument("wheels", nargs="+", type=Path)
    arguments = parser.parse_args()
    glibc = tuple(map(int, arguments.glibc.split(".")))
    for wheel in arguments.wheels:
        check_tag(wheel, glibc)
        with zipfile.ZipFile(wheel) as archive:
            if archive.testzip() is not None:
                sys.exit(f"{wheel.name} is damaged")
            names = [name for name in archive.namelist() if not name.endswith("/")]
            native = check_files(wheel, names)
            print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size} bytes")
            check_module(wheel, archive.read(native), glibc)


if __name__ == "__main__":
    main()
