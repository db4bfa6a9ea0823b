"""The page of one run: what came of it, how it trained, what each layer costs and loses, what its codes and answers look like, how to repeat it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lobit.errors import ConfigError
from lobit.report.answers import confusion, most_confused, samples
from lobit.report.codes import CodeHistogram
from lobit.report.figures import inline_svg
from lobit.report.layer_error import LayerError
from lobit.report.page import write_page
from lobit.report.run_facts import RunFacts, gather
from lobit.report.run_figures import accuracy_curve, error_bars, histogram, loss_curve, rate_curve

SAMPLES = 24
PAIRS = 5
MOST_CLASSES = 20
"""Classes that a table of confusions has room for."""
SURE = 0.05


@dataclass(frozen=True, slots=True)
class CodesCard:
    """Histograms of one layer, and their pictures."""

    layer: str
    title: str
    weights: CodeHistogram
    activations: CodeHistogram
    pictures: tuple[str, str]


def write_run_page(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    packed: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the page of a finished run: one HTML file that needs nothing else.

    The packed net is run on the test set and timed on this machine; codes and errors are taken from its first images.

    Parameters
    ----------
    run : path-like
        The run's folder.
    out : path-like, optional
        The page; ``<run>/report.html`` by default. Its folder must exist.
    packed : path-like, optional
        The run's ``.lobit`` file; by default ``<run>/model.lobit``, and where there is none, the model is packed in memory.
    data_dir : path-like, optional
        Where the data sets are; by default what ``LOBIT_DATA`` names.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ConfigError
        When the run is missing, unfinished or damaged, the file is not of it, or ``out`` cannot be a file.
    OSError
        When the page cannot be written.
    """
    path = Path(out) if out is not None else Path(run) / "report.html"
    if path.is_dir() or (out is not None and not path.parent.is_dir()):
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"{str(path)!r} {what}; name a file for the page in one that does")
    facts = gather(run, packed=packed, data_dir=data_dir)
    classes = len(facts.classes)
    table = confusion(facts.labels, facts.predicted, classes)
    write_page(
        path,
        "run_page",
        facts=facts,
        right=int((facts.predicted == facts.labels).sum()),
        pictures=_pictures(facts),
        cards=_cards(facts),
        reading=read_errors(facts.errors),
        confusion=table if classes <= MOST_CLASSES else None,
        confused=most_confused(table, PAIRS),
        samples=samples(facts.images, facts.labels, facts.logits, facts.classes, SAMPLES),
    )
    return path


def _pictures(facts: RunFacts) -> dict[str, str]:
    found = {}
    if facts.history:
        epoch, test = int(facts.result["epoch"]), float(facts.result["test_accuracy"])
        drawings: dict[str, tuple[Any, str]] = {
            "loss": (partial(loss_curve, facts.history, epoch), f"Loss by epoch, {_ends(facts.history, 'train_loss', '.3g')} in training"),
            "accuracy": (
                partial(accuracy_curve, facts.history, epoch, test),
                f"Accuracy by epoch, {_ends(facts.history, 'train_accuracy', '.1%')} in training; {test:.2%} on the test set",
            ),
            "rate": (partial(rate_curve, facts.history), f"Learning rate by epoch, {_ends(facts.history, 'lr', '.2g')}"),
        }
        found = {name: inline_svg(draw, title) for name, (draw, title) in drawings.items()}
    if facts.errors:
        title = "Share of each layer's output that quantization destroys: " + ", ".join(
            f"layer {row.name} {row.both:.2%}" for row in facts.errors
        )
        found["errors"] = inline_svg(partial(error_bars, facts.errors, [facts.title(row.name) for row in facts.errors]), title)
    return found


def _ends(history: Sequence[dict[str, float]], name: str, form: str) -> str:
    return f"from {history[0][name]:{form}} to {history[-1][name]:{form}}"


def _cards(facts: RunFacts) -> list[CodesCard]:
    cards = []
    for weights, activations in zip(facts.weights, facts.activations, strict=True):
        pictures = (
            inline_svg(
                partial(histogram, codes, f"{what}, {codes.code}"),
                f"Layer {codes.layer}, {what}: {codes.used} of {len(codes.code.levels)} levels of {codes.code} used, entropy {codes.entropy:.2f} bits",
            )
            for what, codes in (("weights", weights), ("input", activations))
        )
        cards.append(CodesCard(weights.layer, facts.title(weights.layer), weights, activations, tuple(pictures)))  # type: ignore[arg-type]  # two of them
    return cards


def read_errors(errors: Sequence[LayerError]) -> list[str]:
    """What the errors say, in sentences: which layer loses most and on which side, and whether putting a layer back to float pays beyond chance.

    With several layers one of them looks good by chance, so each is held to ``0.05 / layers`` (Bonferroni).
    """
    if not errors:
        return []
    worst = max(errors, key=lambda row: row.both)
    less, more = sorted(((worst.weights, "weights"), (worst.input, "input")))
    side = "its weights and its input about alike" if less[0] > more[0] / 1.5 else f"mostly its {more[1]}"
    found = [f"Layer {worst.name} loses most: quantization destroys {100 * worst.both:.2g} % of the variance of its output, {side}."]
    measured = [(row, row.gain) for row in errors if row.gain is not None]
    if measured:
        sure = SURE / len(measured)
        pays = [(row, gain) for row, gain in measured if gain.accuracy > 0 and gain.chance <= sure]
        samples = measured[0][1].samples
        if pays:
            listed = ", ".join(f"{row.name} ({gain.mended} answers mended, {gain.broken} broken)" for row, gain in pays)
            found.append(f"More bits are likely to pay at {'layers' if len(pays) > 1 else 'layer'} {listed}, of {samples} images.")
        else:
            found.append(
                f"Put back to float, no single layer mends more of {samples} answers than chance would: bits spent on one layer are unlikely to pay."
            )
    return found
