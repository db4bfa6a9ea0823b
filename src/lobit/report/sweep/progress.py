"""What a sweep shows on standard error while its nets are trained: a bar over all epochs in a terminal, a line for each net when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from lobit.report.sweep.cell import CellRecord
from lobit.report.sweep.grid import Cell


class ShowCells:
    """Counts nets and epochs; epochs are read from the ``metrics.csv`` of the nets that are trained now.

    Parameters
    ----------
    folders : mapping of Cell to Path
        Of all nets that are to be trained.
    finished : int
        Nets that were there already.
    epochs : int
        Of each net.
    shown : bool
        False shows nothing.
    """

    def __init__(
        self, folders: Mapping[Cell, Path], finished: int, epochs: int, *, shown: bool = True, console: Console | None = None
    ) -> None:
        self.folders, self.finished, self.epochs, self.shown = folders, finished, epochs, shown
        self.console = console or Console(file=sys.stderr)
        self._ended: set[Cell] = set()
        self._running: list[Cell] = []
        self._start = time.perf_counter()
        self._at_start = self._done()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> ShowCells:
        if self.shown and self.finished:
            self.say(f"{self.finished} of {self.finished + len(self.folders)} nets are there already")
        if self.shown and self.folders and self.console.is_terminal:
            columns = (
                TextColumn("{task.fields[nets]}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[running]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            )
            self._bar = Progress(*columns, console=self.console, expand=True, speed_estimate_period=600)
            self._task = self._bar.add_task("", total=len(self.folders) * self.epochs, completed=self._at_start, nets="", running="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def begin(self, cell: Cell) -> None:
        """A net is being trained."""
        self._running.append(cell)
        self.tick()

    def end(self, cell: Cell, record: CellRecord | None, error: str | None) -> None:
        """A net is there, or failed."""
        self._running.remove(cell)
        self._ended.add(cell)
        if self._bar is None or error:
            what = (
                f"failed: {error}"
                if error or record is None
                else f"accuracy {record.accuracy:.2%}, {record.file_bytes / 1000:.1f} kB, {record.seconds:.0f} s"
            )
            self.say(f"{cell.name}: {what}; {self._count()}{self._left()}")
        self.tick()

    def tick(self) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=self._done(), nets=self._count(), running=" ".join(cell.bits for cell in self._running))

    def say(self, line: str) -> None:
        """Print a line, whole also when piped."""
        if self.shown:
            self.console.print(line, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        return f"{self.finished + len(self._ended)} of {self.finished + len(self.folders)} nets"

    def _done(self) -> int:
        """Epochs, of the nets that are to be trained; one that failed counts in full."""
        return sum(self.epochs if cell in self._ended else _epochs_in(folder) for cell, folder in self.folders.items())

    def _left(self) -> str:
        new = self._done() - self._at_start
        left = len(self.folders) * self.epochs - self._done()
        spent = time.perf_counter() - self._start
        return f", about {spent / new * left:.0f} s left" if new > 0 and left > 0 else ""


def _epochs_in(folder: Path) -> int:
    """Epochs that a run has done: the lines of its table but for the head."""
    try:
        return max(0, (folder / "metrics.csv").read_bytes().count(b"\n") - 1)
    except OSError:
        return 0
