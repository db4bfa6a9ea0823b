"""`lobit run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lobit.cli.options import PixelRange, Threads
from lobit.errors import ConfigError

if TYPE_CHECKING:
    from lobit.data.inputs import Unreadable
    from lobit.report.classify import Prediction
    from lobit.report.scores import ScoresFile

EXAMPLE = "Example: lobit run lobit-demo/w2a2.lobit photos/ digit.png --top 3"
NAME, LABEL, SCORE, RAW = 30, 16, 10, 9
MOST_NOTES = 5
WIDTH = 80


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command("run", epilog=EXAMPLE)(classify)


def classify(
    file: Annotated[Path, typer.Argument(help="The .lobit file.")],
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders of them, .npy files; - reads .npy from standard input.")],
    top: Annotated[int, typer.Option(min=1, help="Show the best classes, this many.")] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="Add the raw scores of all classes, in their order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, one line an input (JSON Lines).")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Write all raw scores to this file, one row an input.")] = None,
    classes: Annotated[Path | None, typer.Option(help="A text file with the name of one class a line, instead of the file's.")] = None,
    pixel_range: PixelRange = None,
    white: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The largest pixel of uint8 arrays, where the file does not say it.")
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Turn pixels round: dark on light to light on dark.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Inputs that run together.")] = 32,
    threads: Threads = 1,
) -> None:
    """Run a packed file on images or arrays: a line with class and score for each, as soon as it is known.

    Images become the network's size and colours; what was done is said on standard error. Arrays hold float32 inputs, or uint8 pixels.
    A score is a probability (softmax) where the network was trained with cross-entropy, else the network's raw output. Columns are separated by
    tabs when piped. Inputs that cannot be read are named on standard error, the others go on, and the status is 1.
    """
    from lobit.format import about_graph
    from lobit.report.classify import check_classes, with_options
    from lobit.report.classify import classify as stream
    from lobit.runtime import load

    _spare_inputs(out, file, inputs)
    session = load(file, threads=threads)
    about = with_options(about_graph(session.graph), pixel_range, white, None if classes is None else _labels(classes))
    found = stream(session, inputs, about, top=top, batch=batch, invert=invert)
    bad = 0
    with _scores_file(out, check_classes(session, about)) as rows:
        for one, text in _lines(found, min(LABEL, max(map(len, about.classes), default=5)), scores=scores, as_json=as_json):
            bad += one is None
            if rows is not None and one is not None:
                rows.add(one.scores)
            if text:
                print(text, flush=True)
    if bad:
        print(f"lobit: {bad} input(s) could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _lines(found: Iterable[Prediction | Unreadable], label: int, *, scores: bool, as_json: bool) -> Iterator[tuple[Prediction | None, str]]:
    """Each prediction with its line; what cannot be read goes to standard error."""
    from lobit.data.inputs import Unreadable

    notes: set[str] = set()
    said = False
    terminal = sys.stdout.isatty()
    for one in found:
        if isinstance(one, Unreadable):
            print(f"lobit: {_plain(one.name)}: {one.why}", file=sys.stderr)
            yield None, json.dumps({"input": one.name, "error": one.why}) if as_json else ""
            continue
        if one.done and one.done not in notes and len(notes) < MOST_NOTES:
            notes.add(one.done)
            print(f"{_plain(one.name)}: {one.done}", file=sys.stderr)
        if not said and terminal and not as_json:
            said = True
            print(
                "scores are " + ("raw outputs of the network" if one.best[0].probability is None else "probabilities (softmax)"),
                file=sys.stderr,
            )
        if as_json:
            yield one, json.dumps(one.as_dict(scores=scores))
        else:
            yield one, _for_terminal(one, label, scores=scores) if terminal else _piped(one, scores=scores)


def _piped(one: Prediction, *, scores: bool) -> str:
    cells = [cell for each in one.best for cell in (each.label, f"{each.score if each.probability is None else each.probability:.6g}")]
    return "\t".join([_plain(one.name), *cells, *(f"{score:.6g}" for score in one.scores.tolist() if scores)])


def _for_terminal(one: Prediction, label: int, *, scores: bool) -> str:
    """Columns; what does not fit 80 of them goes to further lines."""
    from lobit.runtime.report import shorten

    lines = [""]
    for each in one.best:
        score = f"{each.score:.4g}" if each.probability is None else f"{each.probability:.2%}"
        cell = f"  {shorten(each.label, label):<{label}}{score:>{SCORE}}"
        if len(lines[-1]) + len(cell) > WIDTH - NAME:
            lines.append("")
        lines[-1] += cell
    name = shorten(_plain(one.name), NAME)
    text = [f"{name if index == 0 else '':<{NAME}}{line}" for index, line in enumerate(lines)]
    raw = [f"{score:>{RAW}.4g}" for score in one.scores.tolist() if scores]
    each_line = (WIDTH - 2) // (RAW + 1)
    text += ["  " + " ".join(raw[start : start + each_line]) for start in range(0, len(raw), each_line)]
    return "\n".join(text)


def _plain(name: str) -> str:
    """A name on one line: characters that a terminal acts on, tabs and line ends among them, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _labels(path: Path) -> tuple[str, ...]:
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the classes in {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if not labels:
        raise ConfigError(f"{str(path)!r} names no classes; write one a line")
    return labels


def _spare_inputs(out: Path | None, file: Path, inputs: list[str]) -> None:
    """Refuse to write the scores over what is read."""
    if out is None or not out.exists():
        return
    for given in (file, *map(Path, inputs)):
        if given.exists() and (out.samefile(given) or (given.is_dir() and given.resolve() in out.resolve().parents)):
            raise ConfigError(
                f"--out {str(out)!r} is an input, or lies in a folder of inputs, and exists; name another file for the scores"
            )


@contextmanager
def _scores_file(out: Path | None, count: int) -> Iterator[ScoresFile | None]:
    if out is None:
        yield None
        return
    from lobit.report.scores import scores_file

    with scores_file(out, count) as rows:
        yield rows
