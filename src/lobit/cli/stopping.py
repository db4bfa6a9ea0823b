"""How a command is stopped: Ctrl-C, SIGTERM and a closed terminal end it with one line that says how to go on.

A function that can be resumed raises `lobit.errors.Interrupted`, and the line then names the same command with ``--resume``, without ``--overwrite``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

from lobit.errors import Interrupted

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "stopped, as its terminal was closed"}
SAME_WISH = 0.5
"""Seconds in which a second signal is the same wish: a terminal and a program in between may both pass it on."""
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(Exception):  # noqa: N818
    """A `KeyboardInterrupt`, its cause, on its way through typer, which would make a bare status of it."""


class Commands(TyperGroup):
    """The group of all commands, which lets through how one was stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped from stop


@contextlib.contextmanager
def stoppable() -> Iterator[list[int]]:
    """Signals that ask to stop raise KeyboardInterrupt in the block, which gets a list that will hold the first; a second one ends the process at once.

    Signals that are ignored, as under nohup, stay so.
    """
    received: list[int] = []
    at = 0.0

    def stop(number: int, _: Any) -> None:
        nonlocal at
        if not received:
            received.append(number)
            at = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - at > SAME_WISH:
            _leave_at_once(number)

    former = {}
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        former = {number: signal.signal(number, stop) for number in SIGNALS if signal.getsignal(number) in usual}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def say_stopped(error: BaseException, received: list[int], given: list[str]) -> int:
    """Print how the command ended and how to go on; return its exit status, 128 and the signal's number."""
    number = signal.Signals(received[0]) if received else signal.SIGINT
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
        line = f"lobit: {SIGNALS[number]}; {how_to_go_on(given, resumable=_was_resumable(error))}"
        print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
    return 128 + number


def how_to_go_on(given: list[str], *, resumable: bool) -> str:
    """The command line that goes on with what was stopped, or else does it again; quoted for the shell."""
    if not resumable:
        return f"start again with: {shlex.join(['lobit', *given])}"
    kept = [word for word in given if word not in ("--overwrite", "--resume")]
    return f"go on with: {shlex.join(['lobit', *kept, '--resume'])}"


def _was_resumable(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error is not None


def _leave_at_once(number: int) -> None:
    """Files are whole or absent whenever a process ends, so nothing needs to be waited for."""
    with contextlib.suppress(OSError):
        cursor = _SHOW_CURSOR if os.isatty(2) else b""  # a progress bar hides it
        os.write(2, cursor + b"lobit: stopped at once; files are whole or absent\n")
    os._exit(128 + number)
