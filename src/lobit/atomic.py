"""Files are written whole or not at all: to a temporary file beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under ``path`` only when the block ends without an error.

    Parameters
    ----------
    path : path-like
        The target. Its folder must exist. A symbolic link is followed, so that the file it points to is replaced.

    Raises
    ------
    OSError
        As the file system reports it; the target is then as it was and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(prefix=".lobit-", suffix=".tmp", dir=target.parent)
    try:
        os.close(handle)
        with open(temporary, "wb") as stream:  # noqa: PTH123  # the file object's name is then the path
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode_for(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder, with its parents, for what the block writes; if the block fails, those that were made and are still empty go again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _mode_for(target: Path) -> int:
    """The mode of the file that is replaced, else what the umask gives a new file (mkstemp makes private ones)."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o666 & ~_umask()


def _umask() -> int:
    """The process's umask; asking the system call for it would change it for a moment, for all threads."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o077
