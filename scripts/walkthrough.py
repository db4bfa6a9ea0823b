"""Walk through all commands as a new user and write docs/walkthrough.md: each command with what it prints in 80 columns.

usage: python -m scripts.walkthrough [--out FILE]      takes about two minutes and needs chromium; times in its outputs are this machine's, so let it run alone

Folders of this machine are shown as `~`; nothing else of the output is changed, but for long ones, which are cut where they say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lobit.atomic import atomic_file

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "walkthrough.md"
PICTURE = ROOT / "docs" / "pictures" / "run-page.png"
LINES = 60
"""More lines than that are cut."""

IMAGES = """
import numpy, pathlib
from PIL import Image
from lobit.data import load_data
data = load_data("digits")
pathlib.Path("pictures").mkdir()
for i in range(3):
    Image.fromarray((data.test_images[i, 0] * 15).astype("uint8")).save(f"pictures/{i}-shows-{data.test_labels[i]}.png")
numpy.save("digits.npy", data.test_images[:500])
"""

STEPS = (
    ("What ships", "The models of the zoo, and the recipes that train them.", ("models", "recipes")),
    ("This machine", "What it has, what it lacks, and how to get it.", ("doctor",)),
    ("Training", "A recipe, trained and exported; the page of the run is `report.html` in its folder.", ("train digits-w2a2 --threads 1",)),
    (
        "Stopping and going on",
        "A run that is stopped says how to go on; the second command is the line it printed.",
        ("train digits-w4a4 --threads 1 --no-report  # Ctrl-C after some seconds", "train digits-w4a4 --threads 1 --no-report --resume"),
    ),
    ("Accuracy", "The model of a run and its packed file, side by side.", ("eval runs/digits-w2a2",)),
    ("Costs", "Of a file, counted from its graph.", ("summary runs/digits-w2a2/model.lobit", "summary cifar10-convnet --bits W1A1")),
    ("The same numbers", "The file against the PyTorch model, code by code, on the whole test set.", ("verify runs/digits-w2a2",)),
    (
        "Running it",
        "Pictures, folders and arrays in; classes and scores out. Piped, a line each as soon as it is known.",
        ("run runs/digits-w2a2/model.lobit pictures --top 2", "run runs/digits-w2a2/model.lobit pictures/0-shows-*.png --json"),
    ),
    ("Speed", "Beside the float network of the same shape.", ("bench runs/digits-w2a2/model.lobit --batches 1,32 --seconds 1",)),
    (
        "C for a microcontroller",
        "With test vectors, and a Makefile to compile and run them here.",
        ("export --target c runs/digits-w2a2/model.lobit digits-c",),
    ),
    (
        "Accuracy against bits",
        "A small grid; [accuracy against bits](sweep.md) has two full ones.",
        ("sweep digits-w2a2 --weights 1,4 --activations 1,4 --epochs 3 --out grid",),
    ),
    (
        "When something is wrong",
        "One line that says what, and what to do.",
        ("train digits-w2a", "eval grid/nothing.lobit", "run runs/digits-w2a2/model.lobit grid/grid.txt"),
    ),
)


def walk(folder: Path) -> str:
    """The page."""
    subprocess.run([sys.executable, "-c", IMAGES], cwd=folder, check=True)
    parts = [
        "# All commands, as a new user meets them",
        """What each command prints in 80 columns, written by `python -m scripts.walkthrough`. Times are those of one machine, two cores of an Intel Xeon with
AVX-512 and AMX. [Commands](commands.md) has all options.""",
    ]
    for title, text, lines in STEPS:
        parts += [f"## {title}", text, *(_block(line, folder) for line in lines)]
        if title.startswith("C for"):
            parts.append(_block("make -C digits-c test", folder, shell=True))
        if title == "Training":
            _photograph(folder / "runs" / "digits-w2a2" / "report.html")
            parts.append("![The page of the run: headline figures, training curves, layers, histograms of codes](pictures/run-page.png)")
    return "\n\n".join(parts) + "\n"


def _block(line: str, folder: Path, *, shell: bool = False) -> str:
    command, _, note = line.partition("  # ")
    said = line if shell else f"lobit {line}"
    with (folder / "output.txt").open("w+") as output:
        words = command if shell else f"{sys.executable} -m lobit {command}"
        running = subprocess.Popen(
            words,
            shell=True,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "80"},
            start_new_session=True,
        )
        try:
            running.wait(12 if note else 600)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, 2)
            running.wait(60)
        output.seek(0)
        text = output.read()
    return f"```console\n$ {said}\n{_shown(text, folder)}\n```"


def _photograph(page: Path) -> None:
    """The page's upper part, as a browser shows it."""
    settings = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking")
    with tempfile.TemporaryDirectory() as profile:
        where = (f"--user-data-dir={profile}", f"--screenshot={PICTURE}", "--window-size=1200,2300", page.as_uri())
        subprocess.run(["chromium", *settings, *where], check=True, capture_output=True)


def _shown(text: str, folder: Path) -> str:
    for place in (str(folder), str(ROOT / ".venv"), str(ROOT), os.environ.get("LOBIT_DATA") or "~/data", str(Path.home())):
        text = text.replace(place, "~")
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 10], f"[.. {len(lines) - LINES + 2} lines ..]", *lines[-8:]]
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder, atomic_file(out) as stream:
        stream.write(walk(Path(folder).resolve()).encode())


if __name__ == "__main__":
    main()
