"""One run of a recipe in a folder of its own: train, checkpoint each epoch, test the best epoch."""

from __future__ import annotations

import json
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from lobit.atomic import atomic_file
from lobit.data import DataSet, load_data
from lobit.errors import ConfigError, Interrupted
from lobit.models import model_info
from lobit.recipes import Recipe, load_recipe
from lobit.training.batches import Batches
from lobit.training.checkpoints import AtomicCheckpointIO, build_model, load_model
from lobit.training.folder import keep_checkpoints, run_folder
from lobit.training.module import TrainingModule, accuracy, predict
from lobit.training.progress import ShowProgress, WriteHistory, WriteTensorBoard
from lobit.training.randomness import seeded
from lobit.training.teacher import teach


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a run.

    Parameters
    ----------
    name : str
        The recipe's name.
    folder : str
        Of the run: recipe.yaml, metrics.csv, checkpoints/, tensorboard/, result.json.
    checkpoint : str
        The best epoch's by validation accuracy, or the last where there is no validation set.
    epoch : int
        Of that checkpoint, counted from 1.
    validation_accuracy : float or None
    test_accuracy : float
        Of that checkpoint's model, without retraining.
    seconds : float
        Of the training, in all processes that had a part in it; what was lost when one was killed does not count.
    """

    name: str
    folder: str
    checkpoint: str
    epoch: int
    validation_accuracy: float | None
    test_accuracy: float
    seconds: float


def train(
    recipe: str | os.PathLike[str] | Recipe,
    *,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **overrides: Any,
) -> TrainResult:
    """Train the model of a recipe.

    Parameters
    ----------
    recipe : str, path-like or Recipe
        The name of a shipped recipe (``lobit.recipes.list_recipes()``), or the path of a YAML file.
    out : path-like, optional
        Folder of the run; ``runs/<name>`` by default.
    data_dir : path-like, optional
        Where the data sets are; by default what ``LOBIT_DATA`` names.
    resume : bool
        Go on from the folder's last checkpoint, which is written whole after each epoch: the interrupted epoch is repeated. Weights, optimizer, random
        states (torch's, Python's, numpy's) and history go on, so that at one thread the run ends as an uninterrupted one does, bit for bit, however
        and whenever it was stopped. A run without a checkpoint starts at its first epoch, a finished one is only tested again. The recipe must be the
        same, but for ``epochs``, ``threads`` and the description.
    overwrite : bool
        Start anew where the folder holds a run already.
    progress : bool
        Show a progress bar, or a line an epoch when piped.
    **overrides
        Fields of the recipe to replace: ``epochs``, ``batch_size``, ``seed``, ``threads``.

    Raises
    ------
    ConfigError
        For a wrong recipe, missing data, a folder that holds a run or in which another process trains, or a damaged checkpoint; before any work is done.
    LobitError
        When the loss, a parameter or a statistic stops being finite; the message names the layer. The checkpoints stay as they were.
    Interrupted
        For Ctrl-C once the folder is ready: a KeyboardInterrupt whose message says how to go on.
    """
    if out is not None and not os.fspath(out):
        raise ConfigError("the folder of a run is empty; name one, or leave it out for runs/<recipe>")
    name = recipe_name(recipe)
    spec = load_recipe(recipe, **overrides)
    folder = Path(out) if out is not None else Path("runs") / name
    data = load_data(spec.data.name, data_dir)
    check_sizes(spec, data)
    with _threads(spec.threads), seeded(spec.seed):
        model = build_model(spec)
        module = TrainingModule(model, spec, teach(spec, model, data))
        module.configure_optimizers()  # refuses a model that it does not fit
        with run_folder(folder, spec, resume=resume, overwrite=overwrite) as go_on_from:
            try:
                return _run(name, spec, folder, data, module, go_on_from, progress=progress, resume=resume)
            except KeyboardInterrupt as stop:
                raise Interrupted(f"training in {str(folder)!r} was stopped; resume=True goes on from the last whole epoch") from stop
            except OSError as error:
                raise ConfigError(
                    f"cannot write to {str(folder)!r}: {error.strerror or error}; the last checkpoint is as it was: make room, then go on with resume"
                ) from error


def _run(
    name: str, spec: Recipe, folder: Path, data: DataSet, module: TrainingModule, go_on_from: Path | None, *, progress: bool, resume: bool
) -> TrainResult:
    train_batches, val_batches, test = _split(spec, data)
    curves = WriteTensorBoard(folder / "tensorboard")
    callbacks: list[L.Callback] = [
        _Epochs(train_batches),
        *keep_checkpoints(folder, validation=val_batches is not None),
        WriteHistory(folder / "metrics.csv"),
        curves,
    ]
    bar = ShowProgress(name)
    if progress:
        callbacks.append(bar)
        module.say = bar.say
        if resume and go_on_from is None:
            bar.say(f"{folder} holds no checkpoint to go on from: training starts at the first epoch")
    with _quiet():
        trainer = L.Trainer(
            max_epochs=spec.epochs,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,
        )
        try:
            trainer.fit(
                module,
                _loader(train_batches),
                None if val_batches is None else _loader(val_batches),
                ckpt_path=str(go_on_from) if go_on_from else None,
                weights_only=True,
            )
        except SIGTERMException:
            raise SystemExit(128 + signal.SIGTERM) from None
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        finally:
            bar.close()
            curves.close()
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)
    result = _finish(name, folder, module, test, module.seconds)
    with atomic_file(folder / "result.json") as stream:
        stream.write(json.dumps(asdict(result), indent=2).encode())
    return result


def _loader(batches: Batches) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader that draws from a generator of its own, as some versions of torch do without need: the global one belongs to the model."""
    return DataLoader(batches, batch_size=None, generator=torch.Generator())


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """The recipe's threads while it runs; the caller's own afterwards."""
    former = torch.get_num_threads()
    try:
        if number:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(former)


def recipe_name(recipe: str | os.PathLike[str] | Recipe) -> str:
    """A short name for folders and titles."""
    return recipe.model.name if isinstance(recipe, Recipe) else Path(recipe).stem


def check_sizes(spec: Recipe, data: DataSet) -> None:
    """Refuse a model that does not fit the data, and a validation split or a batch larger than the training set."""
    info = model_info(spec.model.name)
    if info.input_shape != data.train_images.shape[1:] or info.num_classes != len(data.classes):
        raise ConfigError(
            f"model {info.name!r} takes images of {info.input_shape} in {info.num_classes} classes, {data.name} has {data.train_images.shape[1:]} "
            f"in {len(data.classes)}; choose another model or data set"
        )
    left = len(data.train_labels) - spec.data.validation
    if left < spec.batch_size:
        raise ConfigError(
            f"{spec.data.name} has {len(data.train_labels)} training samples; {spec.data.validation} for validation leave {max(left, 0)}, "
            f"less than one batch of {spec.batch_size}. Lower data.validation or batch_size"
        )
    steps = left // spec.batch_size * (spec.epochs - 1)
    if spec.schedule is not None and spec.schedule.unit == "steps" and max(spec.schedule.widths) > steps:
        raise ConfigError(
            f"the schedule of bits ends at step {max(spec.schedule.widths)}, and the last epoch begins at step {steps}: it must have the model's own bits; "
            "ask for more epochs"
        )


def _split(spec: Recipe, data: DataSet) -> tuple[Batches, Batches | None, tuple[Tensor, Tensor]]:
    """Training and validation batches (the last samples of the training set), and the test set."""
    images, test_images = (
        torch.from_numpy(data.scale(part, spec.data.low, spec.data.high)) for part in (data.train_images, data.test_images)
    )
    labels, test_labels = torch.from_numpy(data.train_labels), torch.from_numpy(data.test_labels)
    cut = len(labels) - spec.data.validation
    validation = Batches(images[cut:], labels[cut:], 1000) if spec.data.validation else None
    return Batches(images[:cut], labels[:cut], spec.batch_size, spec.seed), validation, (test_images, test_labels)


def _finish(name: str, folder: Path, module: TrainingModule, test: tuple[Tensor, Tensor], seconds: float) -> TrainResult:
    scored = [row for row in module.history if "val_accuracy" in row]
    best = max(scored, key=lambda row: (row.get("own_bits", 1.0), row["val_accuracy"])) if scored else module.history[-1]
    checkpoint = folder / "checkpoints" / ("best.ckpt" if scored else "last.ckpt")
    model, _ = load_model(checkpoint)
    images, labels = test
    return TrainResult(
        name,
        str(folder),
        str(checkpoint),
        int(best["epoch"]),
        best.get("val_accuracy"),
        accuracy(predict(model, images), labels),
        round(seconds, 1),
    )


def load_test_set(spec: Recipe, data_dir: str | os.PathLike[str] | None = None) -> tuple[Tensor, Tensor]:
    """Test images, scaled as the recipe says, and labels."""
    data = load_data(spec.data.name, data_dir)
    return torch.from_numpy(data.scale(data.test_images, spec.data.low, spec.data.high)), torch.from_numpy(data.test_labels)


class _Epochs(L.Callback):
    """Tells the batches which epoch it is, so that a resumed run shuffles as an uninterrupted one; closes the epoch ahead of what reads its figures."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.batches.epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.batches.epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        module.close_epoch()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on hardware and workers, none of which fits data in memory, stays out of the way."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
