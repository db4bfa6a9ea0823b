"""`lobit models`."""

from __future__ import annotations

from typing import Annotated

import typer

from lobit.errors import ConfigError

EXAMPLE = "Example: lobit models 'mnist*'"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(models)


def models(pattern: Annotated[str, typer.Argument(help="Names with wildcards.")] = "*") -> None:
    """List the models of the zoo."""
    from lobit.models import list_models, model_info

    found = list_models(pattern)
    if not found:
        raise ConfigError(f"no model is called like {pattern!r}; `lobit models` lists them all")
    for name in found:
        info = model_info(name)
        typer.echo(f"{name:<20} {'x'.join(map(str, info.input_shape)):<9} {info.description}")
