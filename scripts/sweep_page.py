"""Write the tables of docs/sweep.md and its pictures from the committed results of `lobit sweep`.

usage: python -m scripts.sweep_page [NAME=FOLDER ...]

With a folder of a finished sweep, such as ``digits=runs/sweep-digits-w2a2``, its result is committed first, as docs/logs/sweep-<NAME>.json and .csv.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from lobit.atomic import atomic_file
from lobit.report.sweep import SweepResult, read_result
from lobit.report.sweep.page import write_pictures
from lobit.report.sweep.table import markdown

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "sweep.md"
PICTURES = DOCS / "pictures"
NAMES = ("digits", "fashion-mnist")


def log(name: str, suffix: str = ".json") -> Path:
    """Where the result of a sweep is committed."""
    return DOCS / "logs" / f"sweep-{name}{suffix}"


def prefix(name: str) -> str:
    """What the names of its pictures begin with."""
    return f"sweep-{name}-"


def tables(result: SweepResult) -> str:
    """The tables, how long the training took, and where the latencies were measured."""
    machine, seconds = result.machine, [row.seconds for row in result.rows]
    nets = sum(len(row.seeds) for row in result.rows)
    training = f"{nets} nets of {result.recipe['epochs']} epochs, {min(seconds):.0f} to {max(seconds):.0f} s each, one thread a net"
    return f"{markdown(result)}\n- Training: {training}. Latencies: {machine['cpu']}, {machine['isa']} kernels, lobit {machine['versions']['lobit']}."


def with_tables(page: str) -> str:
    """The page with its generated parts replaced."""
    for name in NAMES:
        text = tables(read_result(log(name)))
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(\n<!-- /{name} -->)"
        page, count = re.subn(pattern, lambda match, text=text: f"{match[1]}\n{text}\n{match[2]}", page, flags=re.S)
        if count != 1:
            raise SystemExit(f"{PAGE} must have one place for {name}, not {count}")
    return page


def main(arguments: list[str]) -> None:
    """Run from the command line."""
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if name not in NAMES or not folder:
            raise SystemExit(f"{argument!r} is no NAME=FOLDER with one of {', '.join(NAMES)}")
        read_result(Path(folder) / "sweep.json")
        for suffix in (".json", ".csv"):
            shutil.copyfile(Path(folder) / f"sweep{suffix}", log(name, suffix))
    for name in NAMES:
        write_pictures(read_result(log(name)), PICTURES, prefix(name))
    page = with_tables(PAGE.read_text())
    with atomic_file(PAGE) as stream:
        stream.write(page.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
