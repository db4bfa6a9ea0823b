"""`lobit sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import DataDir, folder

EXAMPLE = "Example: lobit sweep digits-w2a2 --weights 1,2,4,32 --activations 1,2,4,32"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(sweep)


def sweep(
    recipe: Annotated[
        str, typer.Argument(help="Name of a shipped recipe (see: lobit recipes), or path of a YAML file; its bits give way.")
    ],
    weights: Annotated[str, typer.Option(metavar="BITS,..", help="Bits of weights, 1 to 8, or 32 for float.")] = "1,2,3,4,32",
    activations: Annotated[str, typer.Option(metavar="BITS,..", help="Bits of activations, 1 to 8, or 32 for float.")] = "1,2,3,4,32",
    seeds: Annotated[
        str | None, typer.Option(metavar="SEED,..", help="Seeds; each trains the whole grid. The recipe's by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=folder, metavar="FOLDER", help="Folder of the sweep; runs/sweep-<recipe> by default.")
    ] = None,
    data_dir: DataDir = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Nets trained at once, each in a process; one a core by default.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch in each process; 1 by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished nets, go on with the others; write the files again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take an earlier sweep in the folder away.")] = False,
    retime: Annotated[bool, typer.Option("--retime", help="Measure the latencies again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a recipe at every combination of bits: accuracy against bytes, energy and latency, as tables, pictures and a page."""
    from lobit.recipes import load_recipe
    from lobit.report.sweep import Grid, sweep
    from lobit.report.sweep.grid import parse_numbers

    chosen = parse_numbers("seeds", seeds) if seeds is not None else (load_recipe(recipe).seed,)
    grid = Grid(parse_numbers("weights", weights), parse_numbers("activations", activations), chosen)
    result = sweep(
        recipe,
        grid,
        out=out,
        data_dir=data_dir,
        jobs=jobs,
        resume=resume,
        overwrite=overwrite,
        retime=retime,
        epochs=epochs,
        threads=threads,
    )
    if as_json:
        typer.echo(result.to_json())
    else:
        from rich.console import Console

        from lobit.report.sweep.table import print_tables

        print_tables(result, Console())
        typer.echo(f"pictures: {Path(result.folder) / 'sweep.html'}")
    for net, why in result.failures.items():
        print(f"lobit: {net} failed: {why}", file=sys.stderr)
    if result.failures:
        raise typer.Exit(1)
