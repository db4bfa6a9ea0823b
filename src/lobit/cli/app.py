"""The commands in one place: what each takes. Each lives in a module of its own, loaded when it is called."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import lobit
from lobit.errors import ConfigError, LobitError
from lobit.extras import missing_extra

app = typer.Typer(
    name="lobit",
    help="Train networks of 1 to 8 bits, export them to one packed file, run them with the bits.",
    epilog="Start with: lobit demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _folder(text: str) -> Path:
    if not text:
        raise typer.BadParameter("it is empty; name a folder, or leave the option out")
    return Path(text)


DataDir = Annotated[Path | None, typer.Option(help="Folder of the data sets; by default what LOBIT_DATA names.")]


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


@app.command(epilog="Example: lobit demo --out /tmp/lobit-demo")
def demo(
    out: Annotated[Path, typer.Option(parser=_folder, metavar="FOLDER", help="Folder to write; an earlier demo in it is replaced.")] = Path(
        "lobit-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training.")] = 1,
) -> None:
    """Train four small nets on handwritten digits, export and run them, compare them in a table and a page."""
    from lobit.cli.demo import run_demo

    run_demo(out, seed)


@app.command(epilog="Example: lobit train mnist-mlp-small-w1a1 --data-dir ~/data --epochs 5")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe (see: lobit recipes), or path of a YAML file.")],
    out: Annotated[Path | None, typer.Option(parser=_folder, metavar="FOLDER", help="Folder of the run; runs/<recipe> by default.")] = None,
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")] = False,
) -> None:
    """Train the model of a recipe, test its best epoch, and export it to <out>/model.lobit."""
    from lobit.cli.train import run_train

    run_train(recipe, out, data_dir, resume=resume, overwrite=overwrite, epochs=epochs, seed=seed, threads=threads)


@app.command(epilog="Example: lobit export runs/digits-w2a2 digits.lobit")
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint.")],
    file: Annotated[Path, typer.Argument(help="The .lobit file to write.")],
    data_dir: DataDir = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse layers that are not exact.")] = False,
) -> None:
    """Export a trained run to a packed file, verified before it appears."""
    from lobit.cli.train import run_export

    run_export(run, file, data_dir, strict=strict)


@app.command(epilog="Example: lobit verify runs/digits-w2a2 digits.lobit")
def verify(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint.")],
    file: Annotated[Path, typer.Argument(help="Its .lobit file.")],
    data_dir: DataDir = None,
) -> None:
    """Compare a packed file with its PyTorch model on the whole test set, code by code."""
    from lobit.cli.train import run_verify

    run_verify(run, file, data_dir)


@app.command(epilog="Example: lobit models 'mnist*'")
def models(pattern: Annotated[str, typer.Argument(help="Names with wildcards.")] = "*") -> None:
    """List the models of the zoo."""
    from lobit.models import list_models, model_info

    found = list_models(pattern)
    if not found:
        raise ConfigError(f"no model is called like {pattern!r}; `lobit models` lists them all")
    for name in found:
        info = model_info(name)
        typer.echo(f"{name:<18} {'x'.join(map(str, info.input_shape)):<9} {info.description}")


@app.command(epilog="Example: lobit recipes")
def recipes() -> None:
    """List the shipped recipes."""
    from lobit.recipes import list_recipes, load_recipe

    for name in list_recipes():
        typer.echo(f"{name:<30} {load_recipe(name).description}")


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
