"""Files are written whole or not at all: to a temporary file beside the target, flushed to disk, then renamed over it.

A killed process may leave its temporary file. Each holds a lock that the kernel frees with the process, so that the next writer in the folder knows which to remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PREFIX, SUFFIX = ".lobit-", ".tmp"


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under ``path`` only when the block ends without an error.

    What killed processes left in the folder is removed first.

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
    remove_stale(target.parent)
    with _temporary(target.parent) as temporary:
        with open(temporary, "wb") as stream:  # noqa: PTH123  # the file object's name is then the path
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode_for(target))
        os.replace(temporary, target)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[str]:
    """The name of a new file, locked while the block runs, and removed if the block fails."""
    handle, name = _locked_temporary(folder)
    try:
        yield name
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(handle)


def _locked_temporary(folder: Path) -> tuple[int, str]:
    while True:
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=folder)
        if _locked_and_there(handle):
            return handle, name
        os.close(handle)  # another process took it for a stale one before it was locked


def _locked_and_there(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is ever taken for stale
        return True
    return os.fstat(handle).st_nlink > 0


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in a folder: regular files of `atomic_file` that nobody holds locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):  # it is in use, another user's, or gone
                    _remove_unused(entry.path)


def _remove_unused(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(handle)


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
