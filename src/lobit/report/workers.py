"""Tasks in processes of their own: one that fails, or is killed, fails alone; when the caller ends, however it ends, they end with it.

A process is a fresh interpreter that reads tasks from its standard input, a line of JSON each, and answers each with a line. So nothing of the caller is run
again in it, as it is when `multiprocessing` imports the caller's script, and the end of the caller is the end of its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from lobit.errors import ConfigError, LobitError

GRACE_SECONDS = 10.0
"""How long a process may take to clean up before it is killed. What it writes is whole or absent either way."""
TICK_SECONDS = 1.0
_PROGRAM = "import sys; from lobit.report.workers import serve; serve(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class Event:
    """The task at ``index`` began, or it ended; ``error`` says why it failed."""

    index: int
    ended: bool
    error: str | None = None


def run_tasks(function: str, tasks: Sequence[Any], jobs: int) -> Iterator[Event | None]:
    """Run a function on every task, ``jobs`` at a time, each in a process; a process takes one task after another.

    Parameters
    ----------
    function : str
        Where it is, as ``package.module:name``.
    tasks : sequence
        What JSON holds.
    jobs : int

    Yields
    ------
    Event or None
        As tasks begin and end; None where nothing happened for a second. Closing the generator, as an exception in the loop over it does, stops all
        processes.

    Raises
    ------
    ConfigError
        When a process cannot even start.
    """
    team = _Team(function, tasks)
    threads = [threading.Thread(target=team.work, daemon=True) for _ in range(min(jobs, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(tasks):
            try:
                event = team.events.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(event, ConfigError):
                raise event
            ended += event.ended
            yield event
    finally:
        team.stop()
        for thread in threads:
            thread.join()


class _Team:
    """Each thread of the caller looks after one process, and all take tasks from one queue."""

    def __init__(self, function: str, tasks: Sequence[Any]) -> None:
        self.function = function
        self.left = deque(enumerate(tasks))
        self.events: queue.SimpleQueue[Event | ConfigError] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.processes: list[_Process] = []
        self.stopped = False

    def work(self) -> None:
        """Hand tasks to a process, and start another one where it died of its task."""
        process: _Process | None = None
        while not self.stopped:
            try:
                index, task = self.left.popleft()
            except IndexError:
                break
            if process is None and (process := self._start()) is None:
                return
            self.events.put(Event(index, False))
            try:
                error = process.ask(task)
            except EOFError:
                error, process = process.ending(), None
            self.events.put(Event(index, True, error))
        if process is not None:
            process.hang_up()

    def _start(self) -> _Process | None:
        """A process that is ready for tasks."""
        with self.lock:
            if self.stopped:
                return None
            process = _Process(self.function)
            self.processes.append(process)
        try:
            process.answer()
        except EOFError:
            self.events.put(ConfigError(f"a process of the sweep could not start: {process.ending()}"))
            return None
        return process

    def stop(self) -> None:
        """End all processes."""
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.terminate()
            for process in self.processes:
                process.wait()


class _Process:
    """An interpreter that serves tasks."""

    def __init__(self, function: str) -> None:
        # its standard error, for when it dies; a pipe that nobody reads would fill up
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by wait
        path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ask(self, task: Any) -> str | None:
        """Hand over a task and wait: why it failed, or None."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):  # where it died before: no answer comes
            self.popen.stdin.write(json.dumps(task).encode() + b"\n")
            self.popen.stdin.flush()
        return self.answer()

    def answer(self) -> str | None:
        """Wait for a line. EOFError where the process ends instead."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        error: str | None = json.loads(line)
        return error

    def ending(self) -> str:
        """How it ended, and the last that it said."""
        status = self.popen.wait()
        self.said.seek(0)
        said = self.said.read().decode(errors="replace").strip().splitlines()
        how = f"status {status}" if status >= 0 else f"signal {-status} ({signal.Signals(-status).name})"
        hint = "; was there enough memory? fewer jobs need less" if status == -signal.SIGKILL else ""
        return f"its process ended with {how}{hint}{f': {said[-1]}' if said else ''}"

    def hang_up(self) -> None:
        """No task will follow."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.close()

    def terminate(self) -> None:
        """Ask it to end."""
        self.popen.terminate()

    def wait(self) -> None:
        """Wait until it has ended; kill it when that takes long."""
        try:
            self.popen.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.said):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]  # both are pipes


def serve(function: str) -> None:
    """What a process does: one task after another, until the caller hangs up or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the terminal; the caller stops this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    module, _, name = function.partition(":")
    run = getattr(import_module(module), name)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    requests = os.fdopen(
        os.dup(sys.stdin.fileno()), "rb"
    )  # sys.stdin itself is closed at the end, which must not wait for the thread that reads it
    threading.Thread(target=_read, args=(requests, tasks), daemon=True).start()
    _say(answers, None)
    while True:
        task = tasks.get()
        try:
            run(task)
        except Exception as error:  # whatever it is, the other tasks go on
            _say(answers, str(error) if isinstance(error, LobitError) else f"{type(error).__name__}: {error}")
        else:
            _say(answers, None)


def _read(stream: IO[bytes], tasks: queue.SimpleQueue[Any]) -> None:
    for line in stream:
        tasks.put(json.loads(line))
    os._exit(0)  # nobody waits for an answer any more


def _say(stream: IO[bytes], error: str | None) -> None:
    with contextlib.suppress(OSError):  # the caller is gone, and soon this process
        stream.write(json.dumps(error).encode() + b"\n")
        stream.flush()
