"""Classes and scores of a packed network for a stream of inputs, batch by batch. Free of torch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.data.inputs import Sample, Scaling, Unreadable, check_names, samples
from lobit.data.pictures import WHITE
from lobit.errors import ConfigError, ShapeError
from lobit.format import About
from lobit.runtime import Session


@dataclass(frozen=True, slots=True)
class Ranked:
    """A class: its index, its name, the network's score of it, and a probability where softmax makes one."""

    index: int
    label: str
    score: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network made of one input: its best classes, best first, and all scores."""

    name: str
    best: tuple[Ranked, ...]
    scores: NDArray[Any]
    done: str

    def as_dict(self, *, scores: bool = False) -> dict[str, Any]:
        """Plain values: the best class, the list of the best, what was done to the input, and all scores if asked for."""
        best = [
            {"class": one.index, "label": one.label, "score": one.score}
            | ({} if one.probability is None else {"probability": one.probability})
            for one in self.best
        ]
        return {"input": self.name, **best[0], "best": best, "done": self.done} | ({"scores": self.scores.tolist()} if scores else {})


def classify(
    session: Session,
    inputs: Sequence[str | os.PathLike[str]],
    about: About,
    *,
    top: int = 1,
    batch: int = 32,
    invert: bool = False,
) -> Iterator[Prediction | Unreadable]:
    """Run a network on files, folders and arrays, in order; results come as soon as their batch is done.

    No more than one batch is in memory. An input that cannot be read comes as `Unreadable`, in its place, and the rest goes on.

    Parameters
    ----------
    session : Session
        Of one input, and one output of shape ``(classes,)``.
    inputs : sequence of path-like
        Image files, folders, ``.npy`` files, ``"-"`` for an array in ``.npy`` format on standard input.
    about : About
        What is known of the inputs and outputs: scaling, names of the classes, whether scores are logits.
    top : int
        How many classes of each input.
    batch : int
        Inputs that run together.
    invert : bool
        Turn pixels round: for dark on light where the network knows light on dark.

    Raises
    ------
    ConfigError
        When the network gives no scores of classes, names do not fit, or an input does not exist; before any work.
    """
    if top < 1 or batch < 1:
        raise ConfigError(f"top is {top} and batch {batch}; both must be at least 1")
    count = check_classes(session, about)
    check_names(inputs)
    labels = about.classes or tuple(map(str, range(count)))
    scaling = None if about.white is None else Scaling(about.low, about.high, about.white, invert)
    (shape,) = session.graph.inputs.values()
    return _stream(session, samples(inputs, shape, scaling), labels, about.scores == "logits", min(top, count), batch)


def check_classes(session: Session, about: About) -> int:
    """How many classes a network tells apart.

    Raises
    ------
    ConfigError
        When it has several inputs or outputs, or an output that is no list of scores, or the names of its classes are not as many.
    """
    outputs = [session.graph.types[name].shape for name in session.graph.outputs]
    if len(session.graph.inputs) != 1 or len(outputs) != 1 or len(outputs[0]) != 1:
        shapes = ", ".join(map(str, outputs))
        raise ConfigError(
            f"the network has {len(session.graph.inputs)} input(s) and gives {shapes}; classes need one input and one list of scores: use lobit.load in Python"
        )
    if about.classes and len(about.classes) != outputs[0][0]:
        raise ConfigError(f"{len(about.classes)} classes are named; the network has {outputs[0][0]} scores")
    return outputs[0][0]


def with_options(
    about: About, pixel_range: tuple[float, float] | None = None, white: int | None = None, classes: tuple[str, ...] | None = None
) -> About:
    """What a file says, with what the user says in its place; a range alone means pixels of 8 bits.

    Raises
    ------
    ConfigError
        For a wrong value.
    """
    low, high = (about.low, about.high) if pixel_range is None else (float(pixel_range[0]), float(pixel_range[1]))
    known = about.white if pixel_range is None else about.white or WHITE
    return About(about.data, low, high, known if white is None else white, about.classes if classes is None else classes, about.scores)


def _stream(
    session: Session, found: Iterator[Sample | Unreadable], labels: tuple[str, ...], logits: bool, top: int, batch: int
) -> Iterator[Prediction | Unreadable]:
    while group := list(itertools.islice(found, batch)):
        good = [one for one in group if isinstance(one, Sample)]
        try:
            scores = iter(np.asarray(session(np.stack([one.x for one in good])))) if good else iter(())
        except ShapeError as error:
            raise ShapeError(f"{good[0].name} .. {good[-1].name}: {error}") from error
        for one in group:
            yield one if isinstance(one, Unreadable) else _prediction(one, next(scores), labels, logits, top)


def _prediction(sample: Sample, scores: NDArray[Any], labels: tuple[str, ...], logits: bool, top: int) -> Prediction:
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:top]
    exponents = np.exp(scores.astype(np.float64) - float(scores.max()))
    shares = exponents / exponents.sum() if logits else None
    best = tuple(Ranked(int(i), labels[i], float(scores[i]), None if shares is None else float(shares[i])) for i in order)
    return Prediction(sample.name, best, scores, sample.done)
