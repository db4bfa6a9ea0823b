"""`lobit recipes`."""

from __future__ import annotations

import textwrap

import typer

EXAMPLE = "Example: lobit recipes"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(recipes)


def recipes() -> None:
    """List the shipped recipes."""
    from lobit.recipes import list_recipes, load_recipe

    for name in list_recipes():
        typer.echo(name)
        typer.echo(textwrap.fill(load_recipe(name).description, 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
