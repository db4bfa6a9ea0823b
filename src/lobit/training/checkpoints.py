"""Checkpoints: written whole or not at all, read with ``weights_only=True``."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from lobit import models
from lobit.atomic import atomic_file
from lobit.errors import ConfigError, LobitError
from lobit.recipes import Recipe, check_recipe
from lobit.training.schedules import QuantizationSchedule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints through `atomic_file`, so that a killed run keeps its last good one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()  # torch.save hides why a file cannot be written
        torch.save(checkpoint, data)
        with atomic_file(path) as stream:
            stream.write(data.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as data: no code in it is run, whatever is asked for."""
        return read_checkpoint(path)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of a lobit run.

    Raises
    ------
    ConfigError
        When there is none, or it is damaged or of another program.
    """
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"there is no checkpoint {os.fspath(path)!r}; train first, or name another run folder") from None
    except Exception as error:  # torch.load raises many kinds for damaged or hostile files
        raise ConfigError(f"cannot read checkpoint {os.fspath(path)!r}: {type(error).__name__}; it is damaged or not lobit's") from error
    if not isinstance(checkpoint, dict) or not _is_ours(checkpoint):
        raise ConfigError(f"{os.fspath(path)!r} is no checkpoint of a lobit run")
    return checkpoint


def _check_sums(path: str | os.PathLike[str]) -> None:
    """Compare the checksums in the file, a zip archive, with its contents; torch.load does not, and would take a damaged weight for a good one."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("compressed, which torch.save does not do")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _is_ours(checkpoint: dict[str, Any]) -> bool:
    ours, state = checkpoint.get("lobit"), checkpoint.get("state_dict")
    if not isinstance(ours, dict) or not isinstance(state, dict):
        return False
    kinds = {"recipe": dict, "history": list, "random": dict, "seconds": float}
    return all(isinstance(ours.get(name), kind) for name, kind in kinds.items()) and all(isinstance(name, str) for name in state)


def load_model(run: str | os.PathLike[str]) -> tuple[nn.Module, Recipe]:
    """The trained model of a run, in eval mode, and its recipe.

    Parameters
    ----------
    run : path-like
        A run's folder (its best checkpoint is taken, else its last), or a checkpoint file.
    """
    path = Path(run)
    try:
        if path.is_dir():
            folder = path / "checkpoints"
            path = folder / "best.ckpt" if (folder / "best.ckpt").exists() else folder / "last.ckpt"
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(run)!r}: {error.strerror or error}; check its permissions") from error
    checkpoint = read_checkpoint(path)
    if Path(run).is_dir() and path.name == "last.ckpt" and checkpoint["lobit"]["recipe"].get("data", {}).get("validation"):
        raise ConfigError(f"{os.fspath(run)!r} has no checkpoints/best.ckpt; name {os.fspath(path)!r} itself to take the last epoch")
    recipe = check_recipe(f"of checkpoint {os.fspath(path)}", checkpoint["lobit"]["recipe"])
    model = build_model(recipe)
    if recipe.schedule is not None:
        QuantizationSchedule(model, recipe.schedule.widths).load_state_dict(checkpoint["lobit"].get("schedule", {"time": 0}))
    state = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"checkpoint {os.fspath(path)!r} does not fit its recipe's model: {error}") from error
    return model.eval(), recipe


def build_model(recipe: Recipe) -> nn.Module:
    """The model of a recipe, freshly initialised."""
    try:
        model = models.create(recipe.model.name, bits=recipe.model.bits, **recipe.model.args)
    except LobitError:
        raise
    except Exception as error:  # whatever torch says to a width of -3
        raise ConfigError(f"model {recipe.model.name!r} does not take {recipe.model.args!r}: {error}") from None
    if empty := [name for name, parameter in model.named_parameters() if not parameter.numel()]:
        raise ConfigError(f"model {recipe.model.name!r} does not take {recipe.model.args!r}: {empty[0]!r} would be empty")
    return model
