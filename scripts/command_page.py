"""Write docs/commands.md from the commands themselves: what `lobit --help` shows, as one page.

usage: python -m scripts.command_page
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from lobit.atomic import atomic_file
from lobit.cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
INTRODUCTION = """\
# Commands

<!-- Written by `python -m scripts.command_page` from the commands' own help. Do not edit. -->

Every command prints its help with `--help`, and fits 80 columns. An error is one line on standard error and exit status 2; Ctrl-C exits with 130.
"""


def command_page() -> str:
    """The page as Markdown."""
    group: Any = typer.main.get_command(app)
    parts = [INTRODUCTION, *_table("option", group.params, group.make_context("lobit", [], resilient_parsing=True))]
    commands = list(_walk("lobit", group))
    parts.append(
        "| command | |\n| --- | --- |\n"
        + "".join(f"| [{name}](#{name.replace(' ', '-')}) | {_cell(_text(_first_line(command)))} |\n" for name, command in commands)
    )
    for name, command in commands:
        parts += _section(name, command)
    return "\n".join(parts).rstrip() + "\n"


def _walk(name: str, group: Any) -> Any:
    """Name and command of each that is not hidden, those of a group in its place."""
    for short, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            yield from _walk(f"{name} {short}", command)
        else:
            yield f"{name} {short}", command


def _first_line(command: Any) -> str:
    return (command.help or "").strip().split("\n", 1)[0]


def _section(name: str, command: Any) -> list[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = re.sub(r"\s+", " ", command.get_usage(context).removeprefix("Usage:")).strip()
    paragraphs = [_text(part) for part in re.split(r"\n\s*\n", (command.help or "").replace("\b", ""))]
    lines = [f"## {name}\n", "\n\n".join(paragraphs) + "\n", f"```\n{usage}\n```\n"]
    for kind in ("argument", "option"):
        lines += _table(kind, command.params, context)
    if command.epilog:
        label, _, example = command.epilog.partition("Example: ")
        lines.append(f"Example:\n\n```sh\n{example}\n```\n" if example and not label else f"{_text(command.epilog)}\n")
    return lines


def _table(kind: str, parameters: Any, context: Any) -> list[str]:
    records = [parameter.get_help_record(context) for parameter in parameters if parameter.param_type_name == kind]
    rows = [record for record in records if record is not None]
    if not rows:
        return []
    return [
        f"| {kind} | |\n| --- | --- |\n"
        + "".join(f"| `{_cell(left.replace(' range>', '>'))}` | {_cell(_text(right))} |\n" for left, right in rows)
    ]


def _text(text: str) -> str:
    """Help text as Markdown: what stands in angle brackets is a placeholder and no HTML."""
    text = re.sub(r"\s+", " ", text).strip()
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Run from the command line."""
    with atomic_file(PAGE) as stream:
        stream.write(command_page().encode())


if __name__ == "__main__":
    main()
