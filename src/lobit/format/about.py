"""What a file says of its use, beside its graph: the data set, how pixels become inputs, the names of the classes, what the scores mean.

It is stored in the graph's metadata as text, so that old readers pass it on. It changes no number of the network; it is what `lobit run` and `lobit eval`
need to turn an image into an input and an output into a class. It is untrusted like all else in a file: read, it is checked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lobit.errors import ConfigError, FormatError
from lobit.format.graph import Graph

SCORES = ("logits", "margins")
MAX_CLASSES = 1 << 16
MAX_LABEL = 200
MAX_PIXEL = 1e6
MAX_WHITE = 65535


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a network's inputs and outputs; everything may be left out.

    Parameters
    ----------
    data : str
        Name of the data set that it was trained on (``"mnist"``), or ``""``.
    low, high : float
        Pixels 0 .. ``white`` become inputs ``low .. high``: ``low + (high - low) * pixel / white``.
    white : int or None
        The largest pixel value of the data set; None where the scaling is not known. An image file's 8-bit pixels always have 255.
    classes : tuple of str
        Names by index of the output; ``()`` where they are not known.
    scores : {"", "logits", "margins"}
        ``"logits"`` where softmax makes probabilities of the outputs (trained with cross-entropy), ``"margins"`` where it does not (squared hinge).

    Raises
    ------
    ConfigError
        For a value that a file could not hold.

    Examples
    --------
    >>> About(classes=("cat", "dog"), white=255).meta()["classes"]
    '["cat", "dog"]'
    """

    data: str = ""
    low: float = 0.0
    high: float = 1.0
    white: int | None = None
    classes: tuple[str, ...] = ()
    scores: str = ""

    def __post_init__(self) -> None:
        if not _is_text(self.data, 0):
            raise ConfigError(f"the name of a data set is at most {MAX_LABEL} printable characters, not {_short(self.data)}")
        if not (_is_number(self.low) and _is_number(self.high) and self.low < self.high):
            raise ConfigError(
                f"pixels are mapped to a rising range within {MAX_PIXEL:.0f}, not {_short(self.low)} .. {_short(self.high)}; give low below high"
            )
        if self.white is not None and not (type(self.white) is int and 1 <= self.white <= MAX_WHITE):
            raise ConfigError(f"the largest pixel is an integer from 1 to {MAX_WHITE}, not {_short(self.white)}")
        if not isinstance(self.classes, tuple) or len(self.classes) > MAX_CLASSES:
            raise ConfigError(f"classes are a tuple of at most {MAX_CLASSES} names, not {_short(self.classes)}")
        if wrong := [label for label in self.classes if not _is_text(label, 1)]:
            raise ConfigError(f"the name of a class is 1 to {MAX_LABEL} printable characters, not {_short(wrong[0])}")
        if self.scores not in ("", *SCORES):
            raise ConfigError(f"scores are {' or '.join(SCORES)}, not {_short(self.scores)}")

    def meta(self) -> dict[str, str]:
        """The entries of a graph's metadata; what is not known has none."""
        pixels = {"low": self.low, "high": self.high, "white": self.white}
        entries = {
            "data": self.data,
            "pixels": "" if self.white is None else json.dumps(pixels),
            "classes": json.dumps(list(self.classes)) if self.classes else "",
            "scores": self.scores,
        }
        return {name: text for name, text in entries.items() if text}


def about_graph(graph: Graph) -> About:
    """Read what a graph's metadata says.

    Raises
    ------
    FormatError
        When an entry is not of the form that `About` has; the network itself runs all the same.
    """
    meta = graph.meta
    pixels = _json(meta, "pixels", dict)
    classes = _json(meta, "classes", list)
    if pixels and set(pixels) != {"low", "high", "white"}:
        raise FormatError(f"its metadata 'pixels' must hold low, high and white, not {_short(sorted(pixels))}")
    try:
        return About(meta.get("data", ""), classes=tuple(classes), scores=meta.get("scores", ""), **pixels)
    except ConfigError as error:
        raise FormatError(f"its metadata is wrong: {error}; export it again, or say it with options") from None


def _json(meta: Mapping[str, str], name: str, kind: type) -> Any:
    try:
        value = json.loads(meta[name]) if name in meta else kind()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its metadata {name!r} is not JSON ({_short(error)})") from None
    if not isinstance(value, kind):
        raise FormatError(f"its metadata {name!r} must be a {kind.__name__}, not {_short(value)}")
    return value


def _is_text(value: object, least: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= MAX_LABEL and value.isprintable() and value.strip() == value


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_PIXEL  # type: ignore[arg-type]


def _short(value: object) -> str:
    return repr(value)[:60]
