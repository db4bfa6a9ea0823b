"""Penn Treebank as words: found in the data folder, verified, never downloaded, for its text is under copyright."""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ConfigError, ShapeError

END = "<eos>"
PARTS = {
    "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "valid": "aa0affc06ff7c36e977d7cd49e3839bf",
    "test": "8b80168b89c18661a38ef683c0dc3721",
}
"""MD5 of the three files of Mikolov's preprocessing, unpacked."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as word numbers.

    Parameters
    ----------
    name : str
    train, valid, test : int64 ndarray of shape (N,)
        Numbers of words, one line after the other, each with ``<eos>`` behind it.
    words : tuple of str
        By number: the training text's words, the most frequent first, those of one frequency in the alphabet's order.
    """

    name: str
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    words: tuple[str, ...]


def load_ptb(data_dir: str | os.PathLike[str] | None = None) -> Text:
    """Read Penn Treebank in Mikolov's preprocessing: 10000 words, 929589 of training text.

    Parameters
    ----------
    data_dir : path-like, optional
        The folder that holds ``ptb/ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, each plain or as ``.xz``; by default the one that ``LOBIT_DATA`` names.

    Raises
    ------
    ConfigError
        When a file is missing or another one.
    """
    given = data_dir if data_dir is not None else os.environ.get("LOBIT_DATA") or None
    if given is None:
        raise ConfigError(
            "Penn Treebank needs a data folder: give data_dir, or name one by LOBIT_DATA; its text may not be downloaded freely"
        )
    return text_of("ptb", *(_read(Path(given) / "ptb", part) for part in PARTS))


def text_of(name: str, train: str, valid: str, test: str) -> Text:
    r"""Make a `Text` of three texts whose words stand apart by blanks; a word that training has not is ``<unk>``.

    Raises
    ------
    ConfigError
        When a word is unknown and the training text has no ``<unk>``.

    Examples
    --------
    >>> text = text_of("two lines", "a b a\n<unk> b\n", "a c\n", "b\n")
    >>> text.words, text.valid.tolist()
    (('<eos>', 'a', 'b', '<unk>'), [1, 3, 0])
    """
    split = [[word for line in part.splitlines() for word in (*line.split(), END)] for part in (train, valid, test)]
    counts: dict[str, int] = {}
    for word in split[0]:
        counts[word] = counts.get(word, 0) + 1
    words = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    words = tuple(word for word in words if word != "<unk>") + (("<unk>",) if "<unk>" in counts else ())
    numbers = {word: number for number, word in enumerate(words)}
    unknown = numbers.get("<unk>")
    for part in split[1:]:
        lost = next((word for word in part if word not in numbers), None)
        if lost is not None and unknown is None:
            raise ConfigError(f"the training text of {name!r} has neither {lost!r} nor <unk>; put <unk> where rare words stand")
    train_ids, valid_ids, test_ids = (np.array([numbers.get(word, unknown) for word in part], np.int64) for part in split)
    return Text(name, train_ids, valid_ids, test_ids, words)


def streams(ids: NDArray[np.int64], batch: int, steps: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut a text into ``batch`` streams, and these into pieces of ``steps`` words; a state goes from each piece to the next.

    Yields
    ------
    words, next_words : int64 ndarrays of shape (steps, batch)
        The last piece may be shorter. Words beyond ``batch`` streams of one length are left out.

    Raises
    ------
    ShapeError
        When the text is too short for two words a stream.
    """
    length = len(ids) // batch if batch > 0 else 0
    if length < 2 or steps < 1:
        raise ShapeError(
            f"a text of {len(ids)} words has no {batch} streams of pieces of {steps}; take fewer streams, and at least one step"
        )
    rows = ids[: length * batch].reshape(batch, length).T
    for start in range(0, length - 1, steps):
        stop = min(start + steps, length - 1)
        yield rows[start:stop], rows[start + 1 : stop + 1]


def _read(folder: Path, part: str) -> str:
    plain = folder / f"ptb.{part}.txt"
    packed = plain.with_suffix(".txt.xz")
    try:
        data = plain.read_bytes() if plain.is_file() else lzma.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{plain} is missing, plain and as .xz; put Mikolov's preprocessing of Penn Treebank into {folder}") from None
    except (OSError, lzma.LZMAError) as error:
        raise ConfigError(f"cannot read {plain} or {packed.name}: {error}; check the file") from error
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != PARTS[part]:
        raise ConfigError(f"{plain} has MD5 {found} (unpacked), Mikolov's file {PARTS[part]}; it is damaged or another preprocessing")
    return data.decode()
