"""Files are whole or absent, and what a killed writer left is removed by the next one, which never touches a living one's."""

from __future__ import annotations

import os
import signal

import pytest

from lobit.atomic import atomic_file, remove_stale


def killed_while_writing(path, stage):
    """A child process that kills itself with half a file written, or with a whole one before it is renamed."""
    child = os.fork()
    if child == 0:
        try:
            if stage == "unrenamed":
                os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            with atomic_file(path) as stream:
                stream.write(b"half")
                stream.flush()
                if stage == "half":
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("stage", ["half", "unrenamed"])
def test_a_killed_writer_leaves_the_old_file_and_a_temporary_one_that_the_next_write_removes(tmp_path, stage):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    killed_while_writing(target, stage)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.glob(".lobit-*.tmp"))) == 1
    with atomic_file(target) as stream:
        stream.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"new"


def test_files_that_are_being_written_are_left_alone(tmp_path):
    with atomic_file(tmp_path / "a") as outer:
        outer.write(b"a")
        with atomic_file(tmp_path / "b") as inner:
            inner.write(b"b")
        child = os.fork()
        if child == 0:
            remove_stale(tmp_path)
            os._exit(0)
        os.waitpid(child, 0)
        assert len(list(tmp_path.glob(".lobit-*.tmp"))) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"a", "b": b"b"}


def test_only_regular_files_of_our_own_names_are_removed(tmp_path):
    (tmp_path / ".lobit-folder.tmp").mkdir()
    (tmp_path / "precious").write_bytes(b"p")
    (tmp_path / ".lobit-link.tmp").symlink_to(tmp_path / "precious")
    (tmp_path / "my.tmp").write_bytes(b"m")
    os.mkfifo(tmp_path / ".lobit-pipe.tmp")
    before = {path.name for path in tmp_path.iterdir()}
    remove_stale(tmp_path)
    remove_stale(tmp_path / "missing")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_file_that_was_taken_for_a_stale_one_is_made_again(tmp_path, monkeypatch):
    """The moment between its creation and its lock."""
    from lobit import atomic

    made = atomic.tempfile.mkstemp
    names = []

    def make(**settings):
        handle, name = made(**settings)
        names.append(name)
        if len(names) == 1:
            os.unlink(name)
        return handle, name

    monkeypatch.setattr(atomic.tempfile, "mkstemp", make)
    with atomic_file(tmp_path / "a") as stream:
        stream.write(b"a")
    assert len(names) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
