"""The training step of a recipe as a Lightning module: loss, Adam with per-layer steps, latent clip, metrics of each epoch."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lobit import optim
from lobit.errors import LobitError
from lobit.nn import SquaredHingeLoss
from lobit.recipes import OptimizerSpec, Recipe


class TrainingModule(L.LightningModule):
    """Trains ``model`` as ``recipe`` says.

    Attributes
    ----------
    history : list of dict
        One row an epoch, plain numbers: epoch, lr, train_loss, train_accuracy, and with a validation set val_loss and val_accuracy. It is kept in the
        checkpoint, so that a resumed run has the whole of it.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.loss = SquaredHingeLoss() if recipe.loss == "squared-hinge" else nn.CrossEntropyLoss()
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        return self.model(x)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        """Adam, fused where torch has it."""
        spec = self.recipe.optimizer
        groups = optim.parameter_groups(self.model, spec.lr, step_scale=self.recipe.step_scale, weight_decay=spec.weight_decay)
        adam = torch.optim.Adam(groups, lr=spec.lr, fused=True)
        for group in adam.param_groups:
            group["initial_lr"] = group["lr"]
        return adam

    def on_train_epoch_start(self) -> None:
        """Set the epoch's rate, from the recipe alone: a resumed run with more epochs has the rates of its own schedule."""
        share = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs) / self.recipe.optimizer.lr
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * share

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch; a loss that is not finite stops the run."""
        loss = self._measure("train", batch)
        if not torch.isfinite(loss):
            raise LobitError(
                f"the loss is {loss.item()} at epoch {self.current_epoch + 1}, batch {index + 1}; lower the learning rate "
                f"(now {self.recipe.optimizer.lr}). The last checkpoint is as it was"
            )
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer; then latent weights go back into their range, ahead of any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        optim.clip_latent_weights(self.model)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Measure one batch in eval mode."""
        self._measure("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Hand the accuracy to the checkpoint that keeps the best epoch."""
        self.log("val_accuracy", self._mean("val", "hits"), batch_size=1)

    def close_epoch(self) -> None:
        """Add the epoch's row to the history.

        Raises
        ------
        LobitError
            When a parameter or statistic is not finite: signs hide a NaN from the loss.
        """
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise LobitError(
                    f"{name!r} is not finite after epoch {self.current_epoch + 1}; lower the learning rate, or look for NaN in the data"
                )
        lr = learning_rate(self.recipe.optimizer, self.current_epoch, self.recipe.epochs)
        row: dict[str, float] = {"epoch": self.current_epoch + 1, "lr": lr}
        for stage in ("train", "val"):
            if f"{stage}_count" in self._sums:
                row |= {f"{stage}_loss": self._mean(stage, "loss"), f"{stage}_accuracy": self._mean(stage, "hits")}
        self._sums = {}
        self.history.append(row)
        self.log_dict({name: value for name, value in row.items() if name not in ("epoch", "val_accuracy")}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history and torch's random state; both load with ``weights_only=True``."""
        checkpoint["lobit"] = {"history": self.history, "rng": torch.get_rng_state(), "recipe": self.recipe.model_dump()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.history = list(checkpoint["lobit"]["history"])
        torch.set_rng_state(checkpoint["lobit"]["rng"])

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
