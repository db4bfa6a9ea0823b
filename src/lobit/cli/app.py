"""The command line as a whole: its commands, and how each of them ends. A command is a module of its own with an `add_to`; what it works with is imported when it runs."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

import lobit
from lobit.cli import bench, classify, demo, doctor, evaluate, export, models, recipes, report, summary, sweep, train, verify
from lobit.cli.stopping import Commands, Stopped, say_stopped, stoppable
from lobit.errors import LobitError
from lobit.extras import missing_extra

app = typer.Typer(
    name="lobit",
    cls=Commands,
    help="Train networks of 1 to 8 bits, export them to one packed file, run them with the bits.",
    epilog="Start with: lobit demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lobit {lobit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of every command; `run` reads --debug itself."""


for _module in (demo, train, sweep, evaluate, export, classify, bench, summary, verify, report, models, recipes, doctor):
    _module.add_to(app)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for an error of the user's, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    with stoppable() as received:
        try:
            status = app([word for word in given if word != "--debug"], standalone_mode=False)
            sys.stdout.flush()
        except BaseException as error:
            if received or isinstance(error, (KeyboardInterrupt, Stopped, typer.Abort)):  # code that is stopped may raise anything
                return say_stopped(error, received, given)
            return _ended_by(error, given)
        if status == 130:  # Ctrl-C while typer read the arguments
            return say_stopped(KeyboardInterrupt(), received, given)
    return status if isinstance(status, int) else 0


def _ended_by(error: BaseException, given: list[str]) -> int:
    """Say what ended a command, and return the status."""
    debug = "--debug" in given
    if isinstance(error, LobitError):
        return _failed(error, debug)
    if isinstance(error, ModuleNotFoundError):
        return _failed(missing_extra(f"lobit {next((word for word in given if word[:1] != '-'), '')}".strip(), error), debug)
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return 0
    if isinstance(error, OSError):
        _silence_stdout()  # what is still to be written to it would fail again
        return _failed(LobitError(f"cannot write: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"), debug)
    if not hasattr(error, "show"):  # click's own errors of usage print themselves
        raise error
    error.show()
    return 2


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
        return 2
    print(f"lobit: {error}", file=sys.stderr)
    return 2
