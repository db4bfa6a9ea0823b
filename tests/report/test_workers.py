"""Workers: tasks run in processes, each fails alone, and no process outlives the caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lobit.errors import ConfigError
from lobit.report.workers import run_tasks

TASK = "tests.report.tasks:task"


def events(tasks, jobs=1):
    return [event for event in run_tasks(TASK, tasks, jobs) if event is not None]


def errors(found):
    return {event.index: event.error for event in found if event.ended}


def gone(pid):
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def pid_in(path):
    wait_for(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_a_process_takes_one_task_after_another_in_their_order(tmp_path):
    found = events([{"what": "work", "name": name, "folder": str(tmp_path)} for name in "abc"])
    assert [(event.index, event.ended, event.error) for event in found] == [(i, ended, None) for i in range(3) for ended in (False, True)]
    assert len({(tmp_path / f"work-{name}").read_text() for name in "abc"}) == 1
    assert (tmp_path / "work-a").read_text() != str(os.getpid())


def test_a_failing_task_fails_alone_whatever_it_does(tmp_path):
    kinds = ["refuse", "work", "break", "die", "exit", "work"]
    found = errors(events([{"what": what, "name": i, "folder": str(tmp_path)} for i, what in enumerate(kinds)]))
    assert found[0] == "not like this"
    assert found[2] == "ZeroDivisionError: of something"
    assert "SIGKILL" in found[3]
    assert "memory" in found[3]
    assert "with status 1: " in found[4]
    assert "no more" in found[4]
    assert found[1] is None
    assert found[5] is None
    assert (tmp_path / "work-5").exists()


def test_two_jobs_are_two_processes(tmp_path):
    found = events([{"what": "work", "name": i, "folder": str(tmp_path)} for i in range(6)], jobs=2)
    assert errors(found) == dict.fromkeys(range(6))
    assert len({path.read_text() for path in tmp_path.iterdir()}) <= 2


def test_no_task_is_no_process():
    assert events([]) == []


def test_a_process_that_cannot_start_ends_it_all():
    with pytest.raises(ConfigError, match="could not start.*no_such_module"):
        list(run_tasks("no_such_module:task", [1], 1))


def test_an_exception_in_the_loop_stops_the_processes(tmp_path):
    for event in run_tasks(TASK, [{"what": "sleep", "folder": str(tmp_path)}] * 2, 1):
        if event is not None:
            pid = pid_in(tmp_path / "sleep-")
            break
    # the generator is closed with its last reference
    wait_for(lambda: gone(pid))


def test_processes_end_with_a_caller_that_is_killed(tmp_path):
    code = f"from lobit.report.workers import run_tasks\nlist(run_tasks({TASK!r}, [{{'what': 'sleep', 'folder': {str(tmp_path)!r}}}], 1))"
    root = str(Path(__file__).parents[2])
    caller = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root})
    try:
        pid = pid_in(tmp_path / "sleep-")
        assert not gone(pid)
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    wait_for(lambda: gone(pid))
