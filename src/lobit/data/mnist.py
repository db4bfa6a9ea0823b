"""MNIST and Fashion-MNIST from their official files: found in the data folder, else downloaded; verified either way."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lobit.atomic import new_folder
from lobit.data.dataset import DataSet
from lobit.data.idx import read_idx
from lobit.errors import ConfigError

PARTS = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set in MNIST's format comes from: its folder, its address, the MD5 of each file gzipped and plain, its class names.

    The sums of the gzipped files are those that torchvision pins for the official ones; the plain ones are of what is in these.
    """

    name: str
    folder: str
    url: str
    md5: dict[str, tuple[str, str]]
    classes: tuple[str, ...]


MNIST = Source(
    "mnist",
    "MNIST",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    },
    tuple("0123456789"),
)
FASHION_MNIST = Source(
    "fashion-mnist",
    "FashionMNIST",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    },
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_mnist(source: Source, data_dir: Path | None) -> DataSet:
    """Read the four files of a data set in MNIST's format.

    Parameters
    ----------
    source : Source
    data_dir : Path, optional
        Where to look: in it, in ``<folder>/raw``, ``<folder>`` and the lower-case name, for ``.gz`` or plain files. What is missing is downloaded to
        ``<data_dir>/<folder>/raw``, or to the user's cache when no folder is given.

    Raises
    ------
    ConfigError
        When a file is damaged, or missing and not to be had.
    """
    images, labels, test_images, test_labels = (read_idx(_obtain(source, part, data_dir), shape) for part, shape in PARTS.items())
    arrays = images[:, None], labels.astype(np.int64), test_images[:, None], test_labels.astype(np.int64)
    return DataSet(source.name, *arrays, white=255, classes=source.classes)


def find_mnist(source: Source, data_dir: Path | None) -> Path | None:
    """The folder that holds all four files, whether they are whole or not; None where there is none."""
    for folder in _folders(source, data_dir):
        if all((folder / part).is_file() or (folder / f"{part}.gz").is_file() for part in PARTS):
            return folder
    return None


def _obtain(source: Source, part: str, data_dir: Path | None) -> Path:
    for folder in _folders(source, data_dir):
        plain, packed = folder / part, folder / f"{part}.gz"
        if packed.is_file():
            _check_md5(packed, source.md5[part][0])
            return packed
        if plain.is_file():
            _check_md5(plain, source.md5[part][1])
            return plain
    return _download(source, part, data_dir)


def _folders(source: Source, data_dir: Path | None) -> list[Path]:
    root = data_dir if data_dir is not None else _cache()
    return [root / source.folder / "raw", root / source.folder, root / source.name, root]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lobit"


def _check_md5(path: Path, expected: str) -> None:
    try:
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if found != expected:
        raise ConfigError(
            f"{path} has MD5 {found}, the official file {expected}; it is damaged or another file: remove it, then it is downloaded again"
        )


def _download(source: Source, part: str, data_dir: Path | None) -> Path:
    import pooch

    folder = (data_dir if data_dir is not None else _cache()) / source.folder / "raw"
    try:
        with new_folder(folder):
            got = pooch.retrieve(
                f"{source.url}{part}.gz", known_hash=f"md5:{source.md5[part][0]}", fname=f"{part}.gz", path=folder, progressbar=False
            )
    except Exception as error:  # pooch passes on whatever requests, the file system or its check raised
        reason = str(error).partition("\n")[0] or "no reason given"
        listed = "\n".join(f"  {name}.gz  MD5 {md5}" for name, (md5, _) in source.md5.items())
        raise ConfigError(
            f"{source.name} is not in {folder.parent.parent} and cannot be downloaded from {source.url} ({type(error).__name__}: {reason}). "
            f"Put these files into {folder}, or name the folder that holds them with --data-dir or LOBIT_DATA:\n{listed}"
        ) from error
    return Path(got)
