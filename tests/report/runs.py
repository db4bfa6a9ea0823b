"""Small finished runs, trained once for all tests that read them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import lobit
from lobit.training import load_model, load_test_set, train
from tests.training.test_training import tiny

_folders: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def finished(bits: str | None, *, validation: int = 200, epochs: int = 2) -> Path:
    """The folder of a run with its packed net; it goes when the tests end. Copy it to change it."""
    _folders.append(tempfile.TemporaryDirectory(prefix="lobit-run-"))
    folder = Path(_folders[-1].name) / "run"
    recipe = tiny(
        model={"name": "digits-convnet", "bits": bits, "args": {"width": 4}},
        data={"name": "digits", "validation": validation},
        epochs=epochs,
        description="A <small> net & a test",
    )
    train(recipe, out=folder, progress=False)
    model, spec = load_model(folder)
    images, _ = load_test_set(spec)
    lobit.export(model, images[:4], folder / "model.lobit")
    return folder
