"""The command line as a whole: its commands, and how each of them ends. A command is a module of its own with an `add_to`; what it works with is imported when it runs."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

import lobit
from lobit.cli import bench, classify, demo, doctor, evaluate, export, models, recipes, summary, train, verify
from lobit.errors import LobitError
from lobit.extras import missing_extra

app = typer.Typer(
    name="lobit",
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


for _module in (demo, train, evaluate, export, classify, bench, verify, summary, models, recipes, doctor):
    _module.add_to(app)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for an error of the user's, 130 for Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        status = app([word for word in given if word != "--debug"], standalone_mode=False)
        sys.stdout.flush()
        if status == 130:  # what typer makes of Ctrl-C
            return _interrupted(given)
    except typer.Abort:
        return _interrupted(given)
    except KeyboardInterrupt:
        return _interrupted(given)
    except LobitError as error:
        return _failed(error, debug)
    except ModuleNotFoundError as error:
        return _failed(missing_extra(f"lobit {next((word for word in given if word[:1] != '-'), '')}".strip(), error), debug)
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except OSError as error:
        _silence_stdout()  # what is still to be written to it would fail again
        return _failed(LobitError(f"cannot write: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"), debug)
    except Exception as error:
        if not hasattr(error, "show"):  # click's own errors of usage print themselves
            raise
        error.show()
        return 2
    return status if isinstance(status, int) else 0


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
        return 2
    print(f"lobit: {error}", file=sys.stderr)
    return 2


def _interrupted(given: list[str]) -> int:
    hint = (
        f"; go on with: lobit {' '.join(word for word in given if word != '--overwrite')} --resume"
        if given[:1] == ["train"] and "--resume" not in given
        else ""
    )
    print(f"\nlobit: interrupted{hint}", file=sys.stderr)
    return 130
