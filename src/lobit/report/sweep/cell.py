"""One net of a sweep: an ordinary run, its packed file, and what was measured of both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lobit.atomic import atomic_file
from lobit.capture import export, verify
from lobit.data import load_data
from lobit.errors import ConfigError, ExportError
from lobit.recipes import Recipe, check_recipe, load_recipe
from lobit.report.about import about_run
from lobit.report.sweep.grid import Cell
from lobit.runtime import Session, load
from lobit.training import TrainResult, load_model, load_test_set, predict, train

RECORD = "cell.json"
PACKED = "model.lobit"
EXAMPLES = 16
"""How many test images a file is verified with before it is written; the whole test set follows."""
ROWS = 1000
"""Test images that are verified at a time, so that memory does not grow with the test set."""


@dataclass(frozen=True, slots=True)
class CellRecord:
    """What was measured of one net; the contents of its ``cell.json``.

    Parameters
    ----------
    weights, activations, seed : int
    epoch : int
        Of the checkpoint that was exported, counted from 1.
    validation_accuracy : float or None
        Share of the validation set; None where the recipe has none.
    accuracy, accuracy_torch : float
        Share of the test set: of the packed file and of PyTorch. They are equal where ``exact``.
    test_images : int
    codes_compared, codes_equal : int
        Integer inputs of the quantized layers over the test set, in PyTorch and packed.
    exact : bool
        Whether every layer gives the same bits everywhere. A layer with one side in float does not promise it.
    file_bytes, weight_bytes, float_bytes : int
        The packed file; its weights as they are stored; the same weights in float32.
    seconds : float
        Of the training.
    """

    weights: int
    activations: int
    seed: int
    epoch: int
    validation_accuracy: float | None
    accuracy: float
    accuracy_torch: float
    test_images: int
    codes_compared: int
    codes_equal: int
    exact: bool
    file_bytes: int
    weight_bytes: int
    float_bytes: int
    seconds: float

    @property
    def cell(self) -> Cell:
        """Which net it is of."""
        return Cell(self.weights, self.activations, self.seed)


def cell_task(cell: Cell, base: Recipe, folder: Path, data_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    """All that a process needs to make a net, as `make_cell` takes it."""
    data = None if data_dir is None else os.fspath(data_dir)
    return {"cell": asdict(cell), "recipe": base.model_dump(), "folder": str(folder), "data_dir": data}


def make_cell(task: Mapping[str, Any]) -> None:
    """Train, or go on with what was begun; export, verify on the whole test set, measure; write the record last.

    Parameters
    ----------
    task : mapping
        As `cell_task` makes it.

    Raises
    ------
    LobitError
        When the training fails, or the packed file does not compute what PyTorch does.
    """
    cell, folder, data_dir = Cell(**task["cell"]), Path(task["folder"]), task["data_dir"]
    recipe = cell.recipe(check_recipe("of the sweep", task["recipe"]))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    result = _finished_run(folder, recipe) or train(recipe, out=folder, data_dir=data_dir, resume=True, progress=False)
    model, _ = load_model(folder)
    data = load_data(recipe.data.name, data_dir)
    images, labels = load_test_set(recipe, data_dir)
    exported = export(model, images[:EXAMPLES], folder / PACKED, about=about_run(recipe, data))
    session = load(folder / PACKED)
    compared, equal = _verified(model, session, images)
    packed = torch.cat([torch.from_numpy(session(rows.numpy())) for rows in torch.split(images, ROWS)])
    accuracy, accuracy_torch = _share(packed, labels), _share(predict(model, images), labels)
    exact = not exported.inexact
    if exact and accuracy != accuracy_torch:
        raise ExportError(f"the packed net reads {accuracy:.4%} of the test set, PyTorch {accuracy_torch:.4%}; they must agree")
    record = CellRecord(
        cell.weights,
        cell.activations,
        cell.seed,
        result.epoch,
        result.validation_accuracy,
        accuracy,
        accuracy_torch,
        len(labels),
        compared,
        equal,
        exact,
        exported.file_bytes,
        exported.weight_bytes,
        exported.float_bytes,
        result.seconds,
    )
    with atomic_file(folder / RECORD) as stream:
        stream.write(json.dumps(asdict(record), indent=2).encode())


def read_cell(folder: Path, cell: Cell) -> CellRecord | None:
    """The record of a net that is finished; None where something of it is missing, so that it has to be made.

    Raises
    ------
    ConfigError
        For a record that is damaged or of another net.
    """
    path = folder / RECORD
    try:
        fields = json.loads(path.read_bytes())
        record = CellRecord(**fields)
        right = record.cell == cell
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error}; delete it, and the net is measured again") from error
    if not right:
        raise ConfigError(
            f"{str(path)!r} is the record of {record.cell.name}, not of {cell.name}; delete it, and the net is measured again"
        )
    packed = folder / PACKED
    return record if packed.is_file() and packed.stat().st_size == record.file_bytes else None


def _finished_run(folder: Path, recipe: Recipe) -> TrainResult | None:
    """The result of a training that ended, where only the rest was cut off."""
    try:
        fields: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
        same = load_recipe(str(folder / "recipe.yaml")) == recipe
    except (OSError, ValueError, ConfigError):
        return None  # train says what is wrong, if anything is
    return TrainResult(**fields) if same else None


def _verified(model: nn.Module, session: Session, images: Tensor) -> tuple[int, int]:
    """Codes compared and codes equal over the test set."""
    reports = [verify(model, session, rows) for rows in torch.split(images, ROWS)]
    for report in reports:
        if not report.ok:
            raise ExportError(f"the packed net does not compute what PyTorch does:\n{report}")
    return sum(report.compared for report in reports), sum(report.equal for report in reports)


def _share(logits: Tensor, labels: Tensor) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)
