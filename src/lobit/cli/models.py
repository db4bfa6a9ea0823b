"""`lobit models`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lobit.errors import ConfigError

EXAMPLE = "Example: lobit models 'mnist*'"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(models)


def models(
    pattern: Annotated[str, typer.Argument(help="Names with wildcards.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """List the models of the zoo: input, classes, weights, multiply-accumulates of one sample, recipes."""
    from lobit.report.zoo import model_rows, model_table

    rows = model_rows(pattern)
    if not rows:
        raise ConfigError(f"no model is called like {pattern!r}; `lobit models` lists them all")
    typer.echo(json.dumps([row.to_dict() for row in rows]) if as_json else model_table(rows))
