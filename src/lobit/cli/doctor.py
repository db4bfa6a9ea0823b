"""`lobit doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLE = "Example: lobit doctor --json > machine.json"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Say what this machine has of all that lobit can use, what is missing and how to get it.

    The exit status is 1 where something that lobit cannot do without is broken.
    """
    from lobit.report.doctor import diagnose

    found = diagnose()
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if not found.ok:
        raise typer.Exit(1)
