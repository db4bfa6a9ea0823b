"""What a run shows: a progress bar with an estimate in a terminal, a line an epoch when piped; and the table of epochs as CSV."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from lobit.atomic import atomic_file
from lobit.training.module import TrainingModule


class ShowProgress(L.Callback):
    """A bar over all batches of the run, with the time that is left and the figures of the last epoch."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.title = title
        self._bar: Progress | None = None
        self._task: Any = None
        self._start = (0.0, 0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the bar, past the epochs that a resumed run has done."""
        self._start = (time.perf_counter(), trainer.current_epoch)
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=20)),
                BarColumn(bar_width=12, table_column=Column(min_width=12)),
                TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4, no_wrap=True)),
                TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
                TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            )
            self._bar = Progress(*columns, console=self.console, expand=True)
            self._bar.start()
            total = (trainer.max_epochs or 1) * int(trainer.num_training_batches)
            self._task = self._bar.add_task(self.title, total=total, completed=trainer.global_step, figures="")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the epoch's figures."""
        assert isinstance(module, TrainingModule)
        row = module.history[-1]
        if self._bar:
            self._bar.update(self._task, figures=_in_short(row))
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        spent = time.perf_counter() - self._start[0]
        left = spent / max(done - self._start[1], 1) * (total - done)
        self.say(f"{self.title}: epoch {done}/{total}, {describe(row)}, {spent:.0f} s, about {left:.0f} s left")

    def say(self, line: str) -> None:
        """Print a line, whole also when piped."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Close the bar, also after an error."""
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar:
            self._bar.stop()
            self._bar = None


class WriteHistory(L.Callback):
    """Rewrites ``metrics.csv`` after each epoch, whole, so that a resumed run has every epoch once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write all epochs so far."""
        assert isinstance(module, TrainingModule)
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in module.history for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(module.history)
        with atomic_file(self.path) as stream:
            stream.write(text.getvalue().encode())


class WriteTensorBoard(L.Callback):
    """Writes each epoch's row for TensorBoard, by optimizer step. A resumed run writes the former epochs again, so that each is there once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the folder anew, with the epochs that are done."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        assert isinstance(module, TrainingModule)
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink(missing_ok=True)
        self._writer = SummaryWriter(str(self.folder))
        for row in module.history:
            self._write(row, int(trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the epoch."""
        assert isinstance(module, TrainingModule)
        self._write(module.history[-1], int(trainer.num_training_batches))

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """End the writer's thread; after an error nobody calls `teardown`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, row: dict[str, float], batches: int) -> None:
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]) * batches)
        self._writer.flush()


def describe(row: dict[str, float]) -> str:
    """Loss and accuracy of an epoch in a few words."""
    parts = [f"loss {row['train_loss']:.4f}", f"train {row['train_accuracy']:.2%}"]
    if "val_accuracy" in row:
        parts.append(f"validation {row['val_accuracy']:.2%}")
    return ", ".join(parts)


def _in_short(row: dict[str, float]) -> str:
    """The same, short enough to stand beside a bar in 80 columns."""
    shares = [f"{word} {100 * row[name]:.3g}%" for word, name in (("train", "train_accuracy"), ("val", "val_accuracy")) if name in row]
    return " ".join([f"loss {row['train_loss']:.2g}", *shares])
