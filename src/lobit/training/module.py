"""The training step of a recipe as a Lightning module: loss, optimizer, schedules, latent clip, guards, metrics of each epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lobit import optim
from lobit.errors import ConfigError, LobitError
from lobit.nn import SquaredHingeLoss
from lobit.recipes import Recipe
from lobit.training import finite
from lobit.training.distillation import Distillation
from lobit.training.flips import ALL, FlipRatio
from lobit.training.guards import Starved
from lobit.training.optimizers import build_optimizer, learning_rate
from lobit.training.randomness import random_states, restore_random_states
from lobit.training.schedules import QuantizationSchedule, progressive


class TrainingModule(L.LightningModule):
    """Trains ``model`` as ``recipe`` says.

    Parameters
    ----------
    model : nn.Module
    recipe : Recipe
    distill : Distillation, optional
        The loss of training, with its teacher; validation measures the recipe's own loss.

    Attributes
    ----------
    say : callable
        Shows a message; the log by default.
    history : list of dict
        One row an epoch, plain numbers: epoch, lr, train_loss, train_accuracy; with a validation set val_loss and val_accuracy; with ``watch.flips``
        the share of weight codes that the epoch changed. It is kept in the checkpoint, so that a resumed run has the whole of it.
    seconds : float
        Of the training so far, in all processes that had a part in it; what was lost when one was killed does not count.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, distill: Distillation | None = None) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.loss = SquaredHingeLoss() if recipe.loss == "squared-hinge" else nn.CrossEntropyLoss()
        self.distill = distill
        self.schedule = None if recipe.schedule is None else QuantizationSchedule(model, recipe.schedule.widths)
        self.say: Callable[[str], object] = logging.getLogger("lobit.training").warning
        self.history: list[dict[str, float]] = []
        self._flips = FlipRatio(model) if recipe.watch.flips else None
        self._starved = Starved(model, recipe.watch.patience, self._hungry) if recipe.watch.starved else None
        self._sums: dict[str, Tensor] = {}
        self._random_states: dict[str, Any] | None = None
        self._seconds = 0.0
        self._began: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        return self.model(x)  # type: ignore[no-any-return]

    @property
    def seconds(self) -> float:
        """Time of the training so far."""
        return self._seconds + (0.0 if self._began is None else time.perf_counter() - self._began)

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer."""
        return build_optimizer(self.model, self.recipe)

    def on_train_start(self) -> None:
        """Put back the random states of the checkpoint, after all that Lightning set up."""
        self._began = time.perf_counter()
        if self._random_states is not None:
            restore_random_states(self._random_states)

    def on_train_epoch_start(self) -> None:
        """Set the epoch's rate, bits and sharpness, from the recipe alone: a resumed run with more epochs has the rates of its own schedule."""
        self._advance("epochs", self.current_epoch)
        for quantizer in progressive(self.model):
            quantizer.set_progress(self.current_epoch / self.recipe.epochs)
        if self._flips:
            self._flips.update()  # with the bits of this epoch
            self._flips.reset()
        share = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs) / self.recipe.optimizer.lr
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * share

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Set the bits of the step, where the recipe counts steps."""
        self._advance("steps", self.global_step)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Look for layers that no gradient has reached."""
        if self._starved:
            self._starved.check()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch; a loss that is not finite stops the run."""
        return self._finite_loss("train", batch, index)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        """Look for parameters that are not finite now and then, and ahead of each validation.

        Raises
        ------
        LobitError
            When a parameter or statistic is not finite: signs hide a NaN from the loss.
        """
        if (index + 1) % finite.EVERY == 0 or self.trainer.is_last_batch:
            self.check_parameters(index)

    def check_parameters(self, index: int) -> None:
        """Stop the run when a parameter or statistic is not finite after a batch."""
        if wrong := finite.describe_not_finite(self.model):
            raise self._stop(f"{wrong}, seen after {self._where('train', index)}; signs may hide it from the loss")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer; then latent weights go back into their range, ahead of any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        optim.clip_latent_weights(self.model)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure one batch in eval mode."""
        self._finite_loss("val", batch, index)

    def on_validation_epoch_end(self) -> None:
        """Hand the accuracy to the checkpoint that keeps the best epoch; any epoch with the model's own bits goes before those of the schedule."""
        self.log("val_accuracy", self._mean("val", "hits") - (not self._own_bits), batch_size=1)

    def close_epoch(self) -> None:
        """Add the epoch's row to the history."""
        lr = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs)
        row: dict[str, float] = {"epoch": self.current_epoch + 1, "lr": lr}
        for stage in ("train", "val"):
            if f"{stage}_count" in self._sums:
                row |= {f"{stage}_loss": self._mean(stage, "loss"), f"{stage}_accuracy": self._mean(stage, "hits")}
        if self.schedule:
            row["own_bits"] = float(self._own_bits)
        if self._flips:
            self._flips.update()
            row |= {"flips" if name == ALL else f"flips/{name}": share for name, share in self._flips.compute().items()}
        self._sums = {}
        self.history.append(row)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, all random states and the time spent; they load with ``weights_only=True``."""
        checkpoint["lobit"] = {
            "history": self.history,
            "random": random_states(),
            "recipe": self.recipe.model_dump(),
            "seconds": self.seconds,
        }
        if self.schedule:
            checkpoint["lobit"]["schedule"] = self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was written; the bits come first, as they decide which state fits."""
        if self.schedule:
            self.schedule.load_state_dict(checkpoint["lobit"]["schedule"])
        self.history = list(checkpoint["lobit"]["history"])
        self._random_states = checkpoint["lobit"]["random"]
        self._seconds = checkpoint["lobit"]["seconds"]

    @property
    def _own_bits(self) -> bool:
        return self.schedule is None or self.schedule.finished

    def _advance(self, unit: str, time: int) -> None:
        if self.schedule and self.recipe.schedule and self.recipe.schedule.unit == unit:
            self.schedule.advance(time)

    def _hungry(self, message: str) -> None:
        where = f"{message}, seen at epoch {self.current_epoch + 1}"
        if self.recipe.watch.starved == "error":
            raise self._stop(where)
        self.say(where)

    def _finite_loss(self, stage: str, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        drawn = torch.get_rng_state()
        try:
            loss = self._measure(stage, batch)
        except ConfigError as error:  # a quantizer that refuses to start from NaN
            if why := self._first_layer(batch, drawn):
                raise self._stop(f"{why}, at {self._where(stage, index)}") from error
            raise
        if not torch.isfinite(loss):
            why = self._first_layer(batch, drawn) or "no layer's output is, when the batch is run again"
            raise self._stop(f"the loss is {loss.item()} at {self._where(stage, index)}: {why}")
        return loss

    def _first_layer(self, batch: tuple[Tensor, Tensor], drawn: Tensor) -> str | None:
        """Look for the first layer that is not finite, in the same batch with the same random numbers."""
        torch.set_rng_state(drawn)
        return finite.first_layer(self.model, self.loss, batch)

    def _where(self, stage: str, index: int) -> str:
        return f"epoch {self.current_epoch + 1}, {'validation ' if stage == 'val' else ''}batch {index + 1}"

    def _stop(self, what: str) -> LobitError:
        kept = f"The checkpoint of epoch {len(self.history)} is as it was: lobit export packs it, --resume repeats this epoch"
        return LobitError(
            f"{what}. Lower the learning rate (optimizer.lr, now {self.recipe.optimizer.lr}) in the recipe and start anew, with --overwrite or in "
            f"another folder. "
            f"{kept if self.history else 'No epoch was finished, so there is no checkpoint'}"
        )

    def _measure(self, stage: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        logits = self.model(x)
        loss: Tensor = self.distill(logits, labels, x) if self.distill and stage == "train" else self.loss(logits, labels)
        for name, value in (
            ("loss", loss.detach() * len(x)),
            ("hits", (logits.detach().argmax(1) == labels).sum()),
            ("count", torch.tensor(len(x))),
        ):
            self._sums[f"{stage}_{name}"] = self._sums.get(f"{stage}_{name}", torch.zeros((), dtype=torch.float64)) + value
        return loss

    def _mean(self, stage: str, name: str) -> float:
        return float(self._sums[f"{stage}_{name}"] / self._sums[f"{stage}_count"])


@torch.inference_mode()
def predict(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits of all rows of ``x`` in eval mode; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(rows) for rows in torch.split(x, batch_size)])
    finally:
        model.train(was_training)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is at the label."""
    return float((logits.argmax(1) == labels).float().mean())
