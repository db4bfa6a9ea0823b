"""What the page of a run tells, gathered from the run's folder: figures of the run, of its file, of its codes and of its answers."""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lobit.capture import verify
from lobit.capture.capture import capture
from lobit.data import load_data
from lobit.errors import ConfigError, LobitError
from lobit.format.file import file_bytes
from lobit.recipes import Recipe, list_recipes, load_recipe
from lobit.report.codes import CodeHistogram, activation_codes, weight_codes
from lobit.report.cost import NetworkCost, cost_of
from lobit.report.layer_error import LayerError, layer_errors
from lobit.report.run_layers import LayerRow, Times, measure_layers
from lobit.report.timing import best_ms
from lobit.runtime import Session, load
from lobit.training import load_model

ANSWER_SECONDS, SAMPLE_MACS = 10.0, 2e11
"""Time for the packed net's answers, and multiply-accumulates for the float passes of the layers' errors: seconds, not minutes, for the largest nets."""
LEAST, MOST = 100, 1000
"""Images for codes and errors, at least and at most."""
BATCH = 100
SECONDS_A_TIMING = 0.2


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All that the page shows.

    Parameters
    ----------
    recipe : Recipe
    recipe_text, command : str
        The recipe as YAML, and the line that repeats the run.
    result : mapping
        Of result.json.
    history : tuple of dict
        Of metrics.csv: one row an epoch.
    cost : NetworkCost
    file_bytes : int
    layers : tuple of LayerRow
        What each layer with weights is, and its time.
    times : Times
        Of all operators, for a batch.
    one_ms, batch_ms : float
        The packed net on one image, and on ``times.batch``, one thread.
    codes_compared, codes_equal : int
        Of PyTorch and the file, over the sample.
    weights, activations : tuple of CodeHistogram
    errors : tuple of LayerError
    sample : int
        Images of the test set that codes and errors were taken from: its first.
    logits : float32 ndarray of shape (N, classes)
        The packed net's answers to the first N test images.
    images, labels : ndarray
        Those N images, pixels 0 .. 255, and their labels.
    classes : tuple of str
    versions : mapping of str to str
    """

    recipe: Recipe
    recipe_text: str
    command: str
    result: Mapping[str, Any]
    history: tuple[dict[str, float], ...]
    cost: NetworkCost
    file_bytes: int
    layers: tuple[LayerRow, ...]
    times: Times
    one_ms: float
    batch_ms: float
    codes_compared: int
    codes_equal: int
    weights: tuple[CodeHistogram, ...]
    activations: tuple[CodeHistogram, ...]
    errors: tuple[LayerError, ...]
    sample: int
    logits: NDArray[np.float32]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The packed net's answers."""
        return np.asarray(self.logits.argmax(1), np.int64)

    def title(self, layer: str) -> str:
        """A layer's name with its operator and bits: ``"8: linear, W2A2"``."""
        return next((f"{row.name}: {row.op}, {row.bits}" for row in self.layers if row.name == layer), layer)


def gather(
    run: str | os.PathLike[str], *, packed: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> RunFacts:
    """Read a finished run, run its packed net on the test set, and measure it.

    Parameters
    ----------
    run : path-like
        Its folder.
    packed : path-like, optional
        Its ``.lobit`` file; by default ``<run>/model.lobit``, and where there is none, the model is packed in memory.
    data_dir : path-like, optional
        Where the data sets are.

    Raises
    ------
    ConfigError
        When the run is missing, unfinished or damaged, or the file is not of it.
    """
    folder = Path(run)
    result, history = _result(folder), _history(folder)
    model, recipe = load_model(folder)
    data = load_data(recipe.data.name, data_dir)
    scaled = partial(data.scale, low=recipe.data.low, high=recipe.data.high)
    path = Path(packed) if packed is not None else folder / "model.lobit"
    if packed is not None or path.exists():
        session, size = load(path), path.stat().st_size
    else:
        graph = capture(model, (torch.from_numpy(scaled(data.test_images[:2])),)).graph
        session, size = Session(graph), len(file_bytes(graph))
    cost = cost_of(session.graph)
    products = sum(layer.macs > 0 for layer in cost.layers)
    sample = int(np.clip(SAMPLE_MACS / max(cost.macs * (4 + products), 1), LEAST, MOST))
    x = scaled(data.test_images[:sample])
    tensor = torch.from_numpy(x)
    try:
        compared = verify(model, session, tensor)
    except LobitError as error:
        raise ConfigError(f"{str(path)!r} is not the net of {os.fspath(run)!r}: {error}; pack it again with lobit export") from error
    if not compared.ok:
        raise ConfigError(f"{str(path)!r} does not compute what the model of {os.fspath(run)!r} does; pack it again with lobit export")
    one_ms, batch_ms = (best_ms(partial(session, x[:batch]), SECONDS_A_TIMING) for batch in (1, BATCH))
    answered = int(np.clip(ANSWER_SECONDS / (batch_ms / 1000 / len(x[:BATCH])), MOST, len(data.test_labels)))
    labels = data.test_labels[:answered]
    logits = [session(scaled(data.test_images[start : min(start + BATCH, answered)])) for start in range(0, answered, BATCH)]
    layers, times = measure_layers(session, cost, x[:BATCH])
    pixels = data.test_images[:answered].astype(np.float64) * (255 / data.white)
    return RunFacts(
        recipe=recipe,
        recipe_text=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        command=_command(str(result["name"]), recipe, folder),
        result=result,
        history=history,
        cost=cost,
        file_bytes=size,
        layers=layers,
        times=times,
        one_ms=one_ms,
        batch_ms=batch_ms,
        codes_compared=compared.compared,
        codes_equal=compared.equal,
        weights=weight_codes(session.graph),
        activations=activation_codes(session, x),
        errors=layer_errors(model, tensor, torch.from_numpy(data.test_labels[: len(x)])),
        sample=len(x),
        logits=np.concatenate(logits),
        images=pixels.round().astype(np.uint8),
        labels=labels,
        classes=data.classes,
        versions=_versions(session),
    )


def _result(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        wanted: dict[str, Any] = {"name": str, "epoch": int, "test_accuracy": float, "seconds": (int, float)}
        if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in wanted.items()):
            raise ValueError(f"it lacks what a run writes there: {', '.join(wanted)}")
    except FileNotFoundError:
        if (folder / "checkpoints").is_dir():
            raise ConfigError(
                f"the run in {str(folder)!r} is not finished; go on with it: lobit train RECIPE --out {folder} --resume"
            ) from None
        raise ConfigError(f"there is no run in {str(folder)!r}; name the folder that lobit train wrote") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {str(folder / 'result.json')!r}: {error}; test the run again: lobit train --resume") from error
    return found


def _history(folder: Path) -> tuple[dict[str, float], ...]:
    try:
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as stream:
            return tuple({name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"cannot read {str(folder / 'metrics.csv')!r}: {error}; remove it, then the page has no curves") from error


def _command(name: str, recipe: Recipe, folder: Path) -> str:
    """The line that repeats a run: by the recipe's name where the shipped one, with options, is this recipe."""
    if name in list_recipes():
        shipped = load_recipe(name)
        changed = {
            field: getattr(recipe, field) for field in ("epochs", "seed", "threads") if getattr(recipe, field) != getattr(shipped, field)
        }
        if None not in changed.values() and load_recipe(name, **changed) == recipe:
            return " ".join(["lobit train", name, *(f"--{field} {value}" for field, value in changed.items())])
    return f"lobit train {shlex.quote(str(folder / 'recipe.yaml'))} --out {shlex.quote(f'{folder}-again')}"


def _versions(session: Session) -> dict[str, str]:
    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "lobit": of("lobit"),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "processor": _processor(),
        "instruction set": session.isa,
        "system": f"{platform.system()} {platform.machine()}",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
