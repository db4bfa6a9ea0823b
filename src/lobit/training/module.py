"""The training step of a recipe as a Lightning module: loss, Adam with per-layer steps, latent clip, metrics of each epoch."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lobit import optim
from lobit.errors import ConfigError, LobitError
from lobit.nn import SquaredHingeLoss
from lobit.recipes import OptimizerSpec, Recipe
from lobit.training import finite
from lobit.training.randomness import random_states, restore_random_states


class TrainingModule(L.LightningModule):
    """Trains ``model`` as ``recipe`` says.

    Attributes
    ----------
    history : list of dict
        One row an epoch, plain numbers: epoch, lr, train_loss, train_accuracy, and with a validation set val_loss and val_accuracy. It is kept in the
        checkpoint, so that a resumed run has the whole of it.
    seconds : float
        Of the training so far, in all processes that had a part in it; what was lost when one was killed does not count.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.loss = SquaredHingeLoss() if recipe.loss == "squared-hinge" else nn.CrossEntropyLoss()
        self.history: list[dict[str, float]] = []
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
        """Adam, fused where torch has it."""
        spec = self.recipe.optimizer
        groups = optim.parameter_groups(self.model, spec.lr, step_scale=self.recipe.step_scale, weight_decay=spec.weight_decay)
        adam = torch.optim.Adam(groups, lr=spec.lr, fused=True)
        for group in adam.param_groups:
            group["initial_lr"] = group["lr"]
        return adam

    def on_train_start(self) -> None:
        """Put back the random states of the checkpoint, after all that Lightning set up."""
        self._began = time.perf_counter()
        if self._random_states is not None:
            restore_random_states(self._random_states)

    def on_train_epoch_start(self) -> None:
        """Set the epoch's rate, from the recipe alone: a resumed run with more epochs has the rates of its own schedule."""
        share = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs) / self.recipe.optimizer.lr
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * share

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
        """Hand the accuracy to the checkpoint that keeps the best epoch."""
        self.log("val_accuracy", self._mean("val", "hits"), batch_size=1)

    def close_epoch(self) -> None:
        """Add the epoch's row to the history."""
        lr = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs)
        row: dict[str, float] = {"epoch": self.current_epoch + 1, "lr": lr}
        for stage in ("train", "val"):
            if f"{stage}_count" in self._sums:
                row |= {f"{stage}_loss": self._mean(stage, "loss"), f"{stage}_accuracy": self._mean(stage, "hits")}
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.history = list(checkpoint["lobit"]["history"])
        self._random_states = checkpoint["lobit"]["random"]
        self._seconds = checkpoint["lobit"]["seconds"]

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
        loss: Tensor = self.loss(logits, labels)
        for name, value in (
            ("loss", loss.detach() * len(x)),
            ("hits", (logits.detach().argmax(1) == labels).sum()),
            ("count", torch.tensor(len(x))),
        ):
            self._sums[f"{stage}_{name}"] = self._sums.get(f"{stage}_{name}", torch.zeros((), dtype=torch.float64)) + value
        return loss

    def _mean(self, stage: str, name: str) -> float:
        return float(self._sums[f"{stage}_{name}"] / self._sums[f"{stage}_count"])


def learning_rate(spec: OptimizerSpec, epoch: int, epochs: int) -> float:
    """The rate of an epoch, counted from 0: the first epoch has ``lr``, the last ``lr_end``.

    exponential: ``lr * (lr_end / lr)^t``; cosine: ``lr_end + (lr - lr_end) (1 + cos(pi t)) / 2``; with ``t = epoch / (epochs - 1)``.
    """
    if spec.lr_end is None or epochs == 1:
        return spec.lr
    t = min(epoch / (epochs - 1), 1.0)
    if spec.schedule == "exponential":
        return float(spec.lr * (spec.lr_end / spec.lr) ** t)
    return spec.lr_end + (spec.lr - spec.lr_end) * (1 + math.cos(math.pi * t)) / 2


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
