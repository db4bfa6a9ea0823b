"""Optional packages: which extra brings them, and one error where they are missing."""

from __future__ import annotations

from importlib import import_module

from lobit.errors import MissingExtraError

EXTRAS = {"jinja2": "report", "matplotlib": "report", "typer": "cli", "rich": "cli", "PIL": "cli", "onnx": "bench", "onnxruntime": "bench"}
"""Which extra brings a package; every other one comes with ``train``."""


def require(what: str, *packages: str) -> None:
    """Import packages that ``what`` cannot do without.

    Raises
    ------
    MissingExtraError
        Naming the package and the line that installs it.
    """
    try:
        for package in packages:
            import_module(package)
    except ModuleNotFoundError as error:
        raise missing_extra(what, error) from error


def missing_extra(what: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise for a package that is missing; the one given where lobit itself lacks a module."""
    package = (error.name or "").partition(".")[0]
    if not package or package == "lobit":
        return error
    return MissingExtraError(f"{what} needs {package}, which is not installed: pip install 'lobit[{EXTRAS.get(package, 'train')}]'")
