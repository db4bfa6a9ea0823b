"""The folder of an export: whole or not at all, and never over anything that lobit did not write."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lobit.errors import ExportError

MANIFEST = "lobit-export.txt"
FIRST_LINE = "lobit export c"
BUILD = "build"
"""What the Makefile writes to; it may stand in an earlier export and goes with it."""


def runtime_files() -> dict[str, str]:
    """The loops and the board support, by name: package data, or native/embedded of a source tree."""
    package = Path(__file__).parent.parent / "embedded"
    source = Path(__file__).parents[3] / "native" / "embedded"
    root = package if package.is_dir() else source
    if not root.is_dir():
        raise ExportError(f"the C files of lobit are missing: neither {str(package)!r} nor {str(source)!r} exists; install lobit again")
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.suffix in {".c", ".h", ".ld"}
    }


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that cannot be written or holds something that is not of an export.

    Raises
    ------
    ExportError
        With what stands in the way.
    """
    try:
        target = Path(os.path.realpath(folder))
        if not os.fspath(folder) or "\0" in str(target):
            raise ExportError(f"{folder!r} names no folder; give one such as 'net-c'")
        if not target.parent.is_dir():
            raise ExportError(f"the folder {str(target.parent)!r} does not exist; create it or choose another")
        if target.exists() or target.is_symlink():
            _check_ours(target)
    except OSError as error:
        raise ExportError(f"cannot write to {str(folder)!r}: {error.strerror or error}; choose another folder") from error
    except (TypeError, ValueError) as error:
        raise ExportError(f"{folder!r} is no path of a folder: {error}") from None
    return target


def _check_ours(target: Path) -> None:
    if not target.is_dir():
        raise ExportError(f"{str(target)!r} is no folder; choose another name")
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or not path.is_dir()}
    if not found:
        return
    manifest = target / MANIFEST
    lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines() if manifest.is_file() else []
    if lines[:1] != [FIRST_LINE]:
        raise ExportError(f"{str(target)!r} is not empty and holds no earlier export; choose a new folder")
    if foreign := sorted(name for name in found - {*lines[1:], MANIFEST} if not name.startswith(f"{BUILD}/")):
        raise ExportError(f"{str(target)!r} holds {foreign[0]!r}, which no export wrote; move it away or choose a new folder")


def write_folder(target: Path, files: Mapping[str, str]) -> None:
    """Write files to a folder beside the target, then put it in the target's place.

    Raises
    ------
    ExportError
        As the file system reports it; what stood there is then as it was.
    """
    content = {**files, MANIFEST: "\n".join([FIRST_LINE, *sorted(files)]) + "\n"}
    try:
        with tempfile.TemporaryDirectory(prefix=".lobit-", dir=target.parent) as temporary:
            fresh, old = Path(temporary) / "new", Path(temporary) / "old"
            for name, text in content.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w", encoding="utf-8", newline="\n") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
            if target.exists():
                target.rename(old)
            try:
                fresh.rename(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ExportError(
            f"cannot write to {str(target)!r}: {error.strerror or error}; nothing was written. Choose a writable folder with enough space"
        ) from error
