"""`lobit recipes`."""

from __future__ import annotations

import typer

EXAMPLE = "Example: lobit recipes"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(recipes)


def recipes() -> None:
    """List the shipped recipes."""
    from lobit.recipes import list_recipes, load_recipe

    for name in list_recipes():
        typer.echo(f"{name:<35} {load_recipe(name).description}")
