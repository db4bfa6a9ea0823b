"""`lobit summary`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLE = "Example: lobit summary cifar10-convnet --bits W1A1"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(summary)


def summary(
    network: Annotated[str, typer.Argument(help="A .lobit file, a run's folder, a checkpoint, a recipe, or a model (see: lobit models).")],
    bits: Annotated[str | None, typer.Option(metavar="W1A2", help="Of a model, or instead of a recipe's; float when left out.")] = None,
    batch: Annotated[int, typer.Option(help="Samples that run at once, for the memory.")] = 1,
    measure: Annotated[bool, typer.Option("--measure", help="Run it and read the machine's energy counters, where it has them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Count what a network costs: weights, operations by width, memory, and an estimate of its energy."""
    from lobit.report.summary import summary

    found = summary(network, bits=bits, batch=batch, measured=measure)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
