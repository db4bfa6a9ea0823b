"""`lobit train`, `lobit export` and `lobit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from lobit.capture import export, verify
from lobit.data import load_data
from lobit.errors import LobitError
from lobit.recipes import Recipe
from lobit.training import load_model, train

EXAMPLES = 16


def run_train(recipe: str, out: Path | None, data_dir: Path | None, *, resume: bool, overwrite: bool, **overrides: Any) -> None:
    """Train, then export the best epoch beside the run."""
    result = train(recipe, out=out, data_dir=data_dir, resume=resume, overwrite=overwrite, **overrides)
    scored = "" if result.validation_accuracy is None else f", validation accuracy {result.validation_accuracy:.2%}"
    typer.echo(
        f"test accuracy {result.test_accuracy:.2%} (error {1 - result.test_accuracy:.2%}) at epoch {result.epoch}{scored}; {result.seconds:.0f} s"
    )
    typer.echo(f"run: {result.folder}")
    run_export(Path(result.checkpoint), Path(result.folder) / "model.lobit", data_dir, strict=False)


def run_export(run: Path, file: Path, data_dir: Path | None, *, strict: bool) -> None:
    """Export the model of a run."""
    model, recipe = load_model(run)
    images, _ = test_set(recipe, data_dir)
    typer.echo(str(export(model, images[:EXAMPLES], file, strict=strict)))


def run_verify(run: Path, file: Path, data_dir: Path | None) -> None:
    """Verify a file on the whole test set."""
    model, recipe = load_model(run)
    images, _ = test_set(recipe, data_dir)
    report = verify(model, file, images)
    typer.echo(str(report))
    if not report.ok:
        raise LobitError(f"{file} does not compute what the model of {run} does; export it again")


def test_set(recipe: Recipe, data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Test images, scaled as the recipe says, and labels."""
    data = load_data(recipe.data.name, data_dir)
    return torch.from_numpy(data.scale(data.test_images, recipe.data.low, recipe.data.high)), torch.from_numpy(data.test_labels)
