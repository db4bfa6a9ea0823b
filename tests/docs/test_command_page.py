"""docs/commands.md is what the commands say of themselves."""

from __future__ import annotations

import typer

from lobit.cli.app import app
from scripts.command_page import PAGE, command_page


def test_the_page_of_commands_is_current() -> None:
    assert PAGE.read_text() == command_page(), "the commands changed: run `python -m scripts.command_page` and commit docs/commands.md"


def test_the_page_names_every_command_and_every_option() -> None:
    page = command_page()
    commands = {name: command for name, command in typer.main.get_command(app).commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert commands.keys() >= {"train", "export", "verify"}
    for name, command in commands.items():
        section = page.split(f"\n## lobit {name}\n")[1].split("\n## ")[0]
        assert f"](#lobit-{name})" in page
        assert (command.epilog or "").removeprefix("Example: ") in section
        for parameter in command.params:
            for spelling in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar or parameter.opts[0]]:
                assert spelling in section
