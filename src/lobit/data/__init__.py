"""Data sets by name, held in memory: digits (shipped), mnist and fashion-mnist (found or downloaded, verified)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lobit.data.dataset import DataSet
from lobit.data.digits import load_digits
from lobit.data.mnist import FASHION_MNIST, MNIST, find_mnist, load_mnist
from lobit.data.text import Text, load_ptb, streams, text_of
from lobit.errors import ConfigError

DATA_SETS: dict[str, Callable[[Path | None], DataSet]] = {
    "digits": lambda _: load_digits(),
    "mnist": lambda folder: load_mnist(MNIST, folder),
    "fashion-mnist": lambda folder: load_mnist(FASHION_MNIST, folder),
}

PLACES: dict[str, Callable[[Path | None], Path | None]] = {
    "digits": lambda _: Path(__file__).parent,
    "mnist": lambda folder: find_mnist(MNIST, folder),
    "fashion-mnist": lambda folder: find_mnist(FASHION_MNIST, folder),
}
"""Where the files of a data set are, without reading them."""


def load_data(name: str, data_dir: str | os.PathLike[str] | None = None) -> DataSet:
    """Load a data set.

    Parameters
    ----------
    name : str
        ``digits``, ``mnist`` or ``fashion-mnist``.
    data_dir : path-like, optional
        The folder that holds the files; by default the one that ``LOBIT_DATA`` names, else the user's cache.

    Raises
    ------
    ConfigError
        For an unknown name, a folder that does not exist, and files that are missing or damaged.

    Examples
    --------
    >>> load_data("digits").train_images.shape
    (1437, 1, 8, 8)
    """
    if name not in DATA_SETS:
        raise ConfigError(f"unknown data set {name!r}; choose one of {', '.join(DATA_SETS)}")
    given = data_dir if data_dir is not None else os.environ.get("LOBIT_DATA") or None
    folder = None if given is None else Path(given)
    if folder is not None and not folder.is_dir() and name != "digits":
        raise ConfigError(f"the data folder {str(folder)!r} does not exist; name another with --data-dir or LOBIT_DATA, or create it")
    return DATA_SETS[name](folder)


__all__ = ["DATA_SETS", "PLACES", "DataSet", "Text", "load_data", "load_ptb", "streams", "text_of"]
