"""A sweep from its request to its result: train what is missing, measure, and write the files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.atomic import atomic_file
from lobit.data import load_data
from lobit.errors import ConfigError, Interrupted, LobitError
from lobit.format import read_file
from lobit.recipes import Recipe, load_recipe
from lobit.report.cost import cost_of
from lobit.report.energy import estimate
from lobit.report.machine import usable_cores
from lobit.report.sweep.cell import PACKED, CellRecord, cell_task, make_cell, read_cell
from lobit.report.sweep.folder import open_folder, shared_fields
from lobit.report.sweep.grid import Grid, check_models
from lobit.report.sweep.measure import LATENCIES, latencies
from lobit.report.sweep.page import write_page, write_pictures
from lobit.report.sweep.progress import ShowCells
from lobit.report.sweep.result import SweepResult, SweepRow
from lobit.report.workers import run_tasks
from lobit.training.run import check_sizes, recipe_name


def sweep(
    recipe: str | os.PathLike[str] | Recipe,
    grid: Grid | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    retime: bool = False,
    progress: bool = True,
    **overrides: Any,
) -> SweepResult:
    """Train a recipe's model at every combination of bits, export and verify each net, and set accuracy against cost.

    Each net is an ordinary run in ``<out>/w1a2-seed1``. Its numbers do not depend on ``jobs``.

    Parameters
    ----------
    recipe : str, path-like or Recipe
        As `lobit.training.train` takes it; its bits and seed give way to the grid's.
    grid : Grid, optional
        Bits and seeds; by default 1, 2, 3, 4 and 32 on both sides, with the recipe's seed.
    out : path-like, optional
        Folder of the sweep; ``runs/sweep-<recipe>`` by default.
    data_dir : path-like, optional
        Where the data sets are; by default what ``LOBIT_DATA`` names.
    jobs : int, optional
        Nets that are trained at once, each in a process; by default the cores that this process may use.
    resume : bool
        Keep the nets that are finished and go on inside those that were begun; with nothing left to train, write the files again.
    overwrite : bool
        Take an earlier sweep in the folder away.
    retime : bool
        Measure the latencies again.
    progress : bool
        Show a bar, or a line for each net when piped, on standard error.
    **overrides
        Fields of the recipe to replace, such as ``epochs``. ``threads`` of each process is the recipe's, or 1.

    Returns
    -------
    SweepResult
        Also written to ``sweep.json``, ``sweep.csv``, ``sweep.html`` and the pictures. Nets that failed are in its ``failures``.

    Raises
    ------
    ConfigError
        For a wrong recipe or grid, missing data, or a folder that holds another sweep; before any work is done.
    LobitError
        When every net failed.
    Interrupted
        For Ctrl-C once the folder is ready: a KeyboardInterrupt whose message says how to go on. All processes have ended.
    """
    if out is not None and not os.fspath(out):
        raise ConfigError("the folder of a sweep is empty; name one, or leave it out for runs/sweep-<recipe>")
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise ConfigError(f"jobs is {jobs!r}; it must be a whole number from 1 on, or left out for one a core")
    name, base = recipe_name(recipe), load_recipe(recipe, **overrides)
    base = base.model_copy(update={"threads": base.threads or 1})
    grid = grid or Grid(seeds=(base.seed,))
    folder = Path(out) if out is not None else Path("runs") / f"sweep-{name}"
    data = load_data(base.data.name, data_dir)
    check_sizes(base, data)
    check_models(grid, base)
    with open_folder(folder, name, base, resume=resume, overwrite=overwrite):
        try:
            records, failures = _records(grid, base, folder, data_dir, jobs or usable_cores(), shown=progress)
            if not records:
                reasons = "; ".join(dict.fromkeys(why.replace(net, "..") for net, why in failures.items()))
                raise LobitError(f"all {len(failures)} nets of the sweep failed: {reasons}")
            images = data.scale(data.test_images, base.data.low, base.data.high)
            result = _result(name, base, grid, folder, images, records, failures, retime=retime)
            write_result(result, folder)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                f"the sweep in {str(folder)!r} was stopped; resume=True keeps what is finished and goes on with the rest"
            ) from stop
    return result


def _result(
    name: str,
    base: Recipe,
    grid: Grid,
    folder: Path,
    images: NDArray[np.float32],
    records: Sequence[CellRecord],
    failures: Mapping[str, str],
    *,
    retime: bool,
) -> SweepResult:
    """Measure what needs all nets, and put the figures together, in the grid's order."""
    nets = {cell.bits: [record for record in records if record.cell.bits == cell.bits] for cell in grid.cells}
    nets = {bits: found for bits, found in nets.items() if found}
    files = {bits: folder / found[0].cell.name / PACKED for bits, found in nets.items()}
    machine, milliseconds = latencies(folder / LATENCIES, files, images, again=retime)
    rows = tuple(_row(found, files[bits], milliseconds[bits]) for bits, found in nets.items())
    return SweepResult(
        name, shared_fields(base), tuple(grid.weights), tuple(grid.activations), len(images), machine, rows, failures, str(folder)
    )


def _records(
    grid: Grid, base: Recipe, folder: Path, data_dir: str | os.PathLike[str] | None, jobs: int, *, shown: bool
) -> tuple[list[CellRecord], dict[str, str]]:
    """The record of every net, in the grid's order, and why others have none."""
    found = {cell: read_cell(folder / cell.name, cell) for cell in grid.cells}
    missing = {cell: folder / cell.name for cell, record in found.items() if record is None}
    cells, tasks = list(missing), [cell_task(cell, base, path, data_dir) for cell, path in missing.items()]
    failures: dict[str, str] = {}
    with ShowCells(missing, len(found) - len(missing), base.epochs, shown=shown) as show:
        for event in run_tasks(f"{make_cell.__module__}:{make_cell.__name__}", tasks, jobs):
            if event is None:
                show.tick()
                continue
            cell = cells[event.index]
            if not event.ended:
                show.begin(cell)
                continue
            found[cell] = read_cell(missing[cell], cell) if event.error is None else None
            if found[cell] is None:
                failures[cell.name] = event.error or f"{str(missing[cell])!r} was changed while the sweep ran"
            show.end(cell, found[cell], failures.get(cell.name))
    return [record for record in found.values() if record is not None], failures


def _row(records: Sequence[CellRecord], file: Path, milliseconds: Mapping[str, float]) -> SweepRow:
    """One combination's nets in one row."""
    first, cost = records[0], cost_of(read_file(file))
    accuracies = [record.accuracy for record in records]
    scored = [record.validation_accuracy for record in records if record.validation_accuracy is not None]
    return SweepRow(
        first.weights,
        first.activations,
        tuple(record.seed for record in records),
        fmean(accuracies),
        min(accuracies),
        max(accuracies),
        fmean(scored) if scored else None,
        all(record.exact for record in records),
        first.file_bytes,
        first.weight_bytes,
        first.float_bytes,
        cost.macs_by_width,
        cost.bit_operations,
        estimate(cost).joules,
        milliseconds,
        round(fmean(record.seconds for record in records), 1),
    )


def write_result(result: SweepResult, folder: Path) -> None:
    """Write ``sweep.json``, ``sweep.csv``, ``sweep.html`` and the pictures, each whole."""
    for name, text in (("sweep.json", result.to_json() + "\n"), ("sweep.csv", result.to_csv())):
        with atomic_file(folder / name) as stream:
            stream.write(text.encode())
    write_pictures(result, folder)
    write_page(result, folder / "sweep.html")
