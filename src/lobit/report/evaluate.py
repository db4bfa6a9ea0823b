"""Evaluate a packed file, or a run's PyTorch model with its packed file beside it, on the test set. A file needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.data import DATA_SETS, DataSet, load_data
from lobit.errors import ConfigError, LobitError
from lobit.format import About, about_graph
from lobit.report.about import about_run
from lobit.report.accuracy import Accuracy, Progress, measure
from lobit.runtime import Session, load
from lobit.runtime.report import shorten, table

ZIP = b"PK\x03\x04"
"""What a checkpoint begins with."""
MOST_CLASSES = 20
WORST = 10
LABEL = 24

Measure = Callable[..., Accuracy]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The accuracy of one or two networks on one test set; ``str()`` makes tables of at most 80 columns."""

    path: str
    data: str
    low: float
    high: float
    batch: int
    threads: int
    nets: tuple[Accuracy, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the shares that they stand for."""
        rows = [{"accuracy": net.accuracy, **asdict(net)} for net in self.nets]
        return {**asdict(self), "nets": rows}

    def __str__(self) -> str:
        head = f"{self.nets[0].images:,} test images of {self.data}, inputs {self.low:g} .. {self.high:g}, {self.threads} thread(s)"
        names = [net.net for net in self.nets]
        lines = [
            ("accuracy", *(f"{net.accuracy:.2%}" for net in self.nets)),
            ("error", *(f"{1 - net.accuracy:.2%}" for net in self.nets)),
        ]
        if any(net.top5 is not None for net in self.nets):
            lines.append(("among the best 5", *("" if net.top5 is None else f"{net.top5 / net.images:.2%}" for net in self.nets)))
        if any(net.loss is not None for net in self.nets):
            lines.append(("loss", *("" if net.loss is None else f"{net.loss:.5f}" for net in self.nets)))
        lines.append(("images a second", *(f"{net.images_per_second:,.0f}" for net in self.nets)))
        right = range(1, len(names) + 1)
        parts = [head, table(("", *names), lines, right=tuple(right)), self._classes(names)]
        return "\n\n".join([*parts, *(self._confusions(net) for net in self.nets[:1])])

    def _classes(self, names: list[str]) -> str:
        rows = list(zip(*(net.classes for net in self.nets), strict=True))
        title = ""
        if len(rows) > MOST_CLASSES:
            rows = sorted(rows, key=lambda row: row[0].correct / max(row[0].images, 1))[:WORST]
            title = f"the {WORST} worst of {len(self.nets[0].classes)} classes\n"
        body = [
            (shorten(row[0].label, LABEL), f"{row[0].images:,}", *(f"{c.correct / c.images:.2%}" if c.images else "-" for c in row))
            for row in rows
        ]
        return title + table(("class", "images", *names), body, right=tuple(range(1, len(names) + 2)))

    def _confusions(self, net: Accuracy) -> str:
        if not net.confusions:
            return "nothing was taken for anything else"
        body = [(shorten(row.label, LABEL), shorten(row.predicted, LABEL), f"{row.count:,}") for row in net.confusions]
        return table(("class", f"taken for ({net.net})", "images"), body, right=(2,))


def evaluate(
    path: str | os.PathLike[str],
    *,
    data: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    pixel_range: tuple[float, float] | None = None,
    batch: int = 1000,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate on a test set.

    Parameters
    ----------
    path : path-like
        A ``.lobit`` file, the folder of a run (its model, and beside it ``model.lobit`` where there is one), or a checkpoint.
    data : str, optional
        The data set; by default the one that the file or the recipe names.
    data_dir : path-like, optional
        Where the data sets are; by default what ``LOBIT_DATA`` names.
    pixel_range : (float, float), optional
        The range that pixels are mapped to; by default what the file or the recipe says.
    batch, threads : int
    progress : callable, optional
        Called with the images done and those of all.

    Raises
    ------
    ConfigError
        When the file does not say what it was trained on and neither do the options, or the data set does not fit the network.

    Examples
    --------
    >>> evaluate("tests/golden/v1-mlp.lobit", data="digits", pixel_range=(0, 1))
    Traceback (most recent call last):
    lobit.errors.ConfigError: the network takes (13,) and gives (4,); digits has images of ...
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    where = Path(path)
    recipe = model = None
    if _is_run(where):
        from lobit.training import load_model

        model, recipe = load_model(where)
        file = where / "model.lobit" if where.is_dir() and (where / "model.lobit").is_file() else None
    else:
        file = where
    session = None if file is None else load(file, threads=threads)
    if recipe is not None:
        sets = load_data(data or recipe.data.name, data_dir)
        about = about_run(recipe, sets)
    else:
        assert session is not None
        about = about_graph(session.graph)
        sets = load_data(_data_name(where, about, data), data_dir)
    low, high = _pixel_range(where, about, pixel_range)
    nets = []
    settings: dict[str, Any] = {"scores": about.scores, "batch": batch, "progress": progress}
    if session is not None:
        _check_fit(session, sets)
        nets.append(measure("packed", lambda x: np.asarray(session(x)), sets, low, high, **settings))
    if model is not None:
        nets.append(_measure_model(model, sets, threads, low, high, settings))
    return Evaluation(os.fspath(path), sets.name, low, high, batch, threads, tuple(nets))


def _is_run(path: Path) -> bool:
    """Whether a path is a run's folder or a checkpoint; the rest is for the reader of files to judge."""
    try:
        if path.is_dir():
            return True
        if path.is_file():
            with path.open("rb") as stream:
                return stream.read(len(ZIP)) == ZIP
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}; check the path") from error
    return path.suffix == ".ckpt"


def _data_name(path: Path, about: About, data: str | None) -> str:
    if data is not None:
        return data
    if not about.data:
        raise ConfigError(f"{str(path)!r} does not say which data set it was trained on; name it with --data ({', '.join(DATA_SETS)})")
    if about.data not in DATA_SETS:
        raise ConfigError(
            f"{str(path)!r} was trained on {about.data!r}, which lobit does not have; name one with --data ({', '.join(DATA_SETS)})"
        )
    return about.data


def _pixel_range(path: Path, about: About, given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        about = replace(about, low=float(given[0]), high=float(given[1]))
    elif about.white is None:
        raise ConfigError(f"{str(path)!r} does not say which range pixels are mapped to; give it, such as --range 0 1")
    return about.low, about.high


def _check_fit(session: Session, data: DataSet) -> None:
    shapes = list(session.graph.inputs.values())
    outputs = [session.graph.types[name].shape for name in session.graph.outputs]
    image = data.test_images.shape[1:]
    if shapes != [image] or outputs != [(len(data.classes),)]:
        raise ConfigError(
            f"the network takes {', '.join(map(str, shapes))} and gives {', '.join(map(str, outputs))}; {data.name} has images of {image} "
            f"in {len(data.classes)} classes: name the data set it was made for"
        )


def _measure_model(model: Any, data: DataSet, threads: int, low: float, high: float, settings: dict[str, Any]) -> Accuracy:
    import torch

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(torch.from_numpy(x)).numpy()
        return found

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measure("PyTorch", run, data, low, high, **settings)
    except (RuntimeError, IndexError) as error:
        raise LobitError(f"the model does not run on {data.name}: {error}") from error
    finally:
        torch.set_num_threads(before)
