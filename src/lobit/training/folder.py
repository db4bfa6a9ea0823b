"""The folder of a run: what may be written there, and whether a run in it can be gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lobit.atomic import atomic_file, new_folder
from lobit.errors import ConfigError
from lobit.recipes import Recipe
from lobit.training.checkpoints import read_checkpoint

FREE_FIELDS = {"description", "epochs", "threads"}
"""Fields of a recipe that a resumed run may change; every other one would make its numbers those of neither recipe."""


def prepare_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> Path | None:
    """Make a run's folder ready, with its recipe in it; return the checkpoint to go on from, if any.

    Raises
    ------
    ConfigError
        When the folder holds a run that is neither to be resumed nor overwritten, a run of another recipe, or cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other; choose one")
    last = folder / "checkpoints" / "last.ckpt"
    try:
        done, started = (folder / "result.json").exists(), last.exists()
    except OSError as error:
        raise ConfigError(f"cannot read {str(folder)!r}: {error.strerror or error}; name another folder with --out") from error
    if (done or started) and not (resume or overwrite):
        what = "a finished run" if done else "an interrupted run"
        go_on = f"`lobit export {folder} FILE` packs its net, " if done else "--resume goes on with it, "
        raise ConfigError(f"{str(folder)!r} holds {what}; {go_on}--overwrite starts anew, --out names another folder")
    go_on_from = last if resume and started else None
    if go_on_from:
        _check_same(go_on_from, recipe)
    try:
        if overwrite and (done or started):
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            for old in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "result.json"):
                (folder / old).unlink(missing_ok=True)
        with new_folder(folder / "checkpoints"), atomic_file(folder / "recipe.yaml") as stream:
            stream.write(yaml.safe_dump(recipe.model_dump(), sort_keys=False).encode())
    except OSError as error:
        raise ConfigError(f"cannot write to {str(folder)!r}: {error.strerror or error}; name a writable folder with --out") from error
    return go_on_from


def _check_same(checkpoint: Path, recipe: Recipe) -> None:
    stored = read_checkpoint(checkpoint)
    started, wanted = stored["lobit"]["recipe"], recipe.model_dump()
    done = len(stored["lobit"]["history"])
    if recipe.epochs < done:
        raise ConfigError(
            f"{str(checkpoint.parent.parent)!r} holds a run of {done} epochs, more than {recipe.epochs}; ask for at least {done}, or overwrite it"
        )
    if recipe.data.validation and done and not (checkpoint.parent / "best.ckpt").exists():
        raise ConfigError(
            f"{str(checkpoint.parent)!r} has lost best.ckpt, the best epoch so far; put it back, or start anew with --overwrite"
        )
    changed = [field for field in wanted if field not in FREE_FIELDS and started.get(field) != wanted[field]]
    if changed:
        listed = "; ".join(f"{field} was {started.get(field)!r}, now is {wanted[field]!r}" for field in changed)
        raise ConfigError(f"{str(checkpoint.parent.parent)!r} holds a run of another recipe ({listed}); --overwrite starts anew")


def keep_checkpoints(folder: Path, *, validation: bool) -> list[ModelCheckpoint]:
    """Callbacks that write ``best.ckpt`` (by validation accuracy, the first of equals) and ``last.ckpt`` after each epoch, in this order.

    The last one holds the state of both, so it must be written after the best one is known: a run that is killed between them repeats the epoch.
    """
    best = [_Keep(folder, filename="best", monitor="val_accuracy", mode="max")] if validation else []
    return [*best, _Keep(folder, filename="last")]


class _Keep(ModelCheckpoint):
    """One file, written over and over; it still knows its best score when the folder was moved between two runs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder / "checkpoints", enable_version_counter=False, save_on_train_epoch_end=True, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state, with this folder in place of the one it was written in."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})
