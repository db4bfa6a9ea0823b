"""The README's figure is what its command draws from the committed results."""

from __future__ import annotations

import importlib.metadata
import json
import re
from functools import partial
from pathlib import Path

import pytest

from lobit.report.figures import LIGHT, write_picture
from scripts import readme_figure as figure


def pinned(name: str) -> bool:
    lines = (figure.ROOT / "constraints.txt").read_text().splitlines()
    return f"{name}=={importlib.metadata.version(name)}" in lines


def test_the_committed_figure_is_what_the_command_draws(tmp_path: Path) -> None:
    if not pinned("matplotlib"):
        pytest.skip("another matplotlib than that of constraints.txt draws other bytes")
    write_picture(tmp_path / "readme.svg", partial(figure.draw), figure.title())
    assert (tmp_path / "readme.svg").read_bytes() == figure.PICTURE.read_bytes(), (
        "run `python -m scripts.readme_figure` and commit the picture"
    )


def test_its_latencies_are_those_of_the_readme() -> None:
    table = re.findall(r"^\| ([\w ]+) \| ([\d.]+)[^|]*\| ([\d.]+)[^|]*\|$", (figure.ROOT / "README.md").read_text(), re.M)
    times = figure.latencies()
    shown = {name: (float(one), float(hundred)) for name, one, hundred in table}
    for key, name in figure.PEERS.items():
        for batch, value in zip((1, 100), shown[name], strict=True):
            digits = len(f"{value}".split(".")[1])
            assert round(times[batch][key], digits) in (value, pytest.approx(value, abs=0.5 * 10**-digits))


def test_the_figure_says_in_words_what_it_shows() -> None:
    words = figure.title()
    for row in figure.latencies().values():
        assert f"{row['lobit_w1a1']:.2g} ms" in words
        assert f"PyTorch fp32 {row['torch_fp32']:.3g} ms" in words
    assert f"<title>{words}" in figure.PICTURE.read_text().replace("&#x27;", "'")


def test_the_sweeps_panel_shows_all_nets_and_names_those_that_none_beats() -> None:
    plot = figure.draw(LIGHT).axes[1]
    rows = json.loads((figure.LOGS / figure.SWEEP).read_text())["rows"]
    points = [(row["file_bytes"], row["accuracy"], f"W{row['weights']}A{row['activations']}") for row in rows]
    best = {
        bits for size, accuracy, bits in points if not any(s <= size and a >= accuracy and (s, a) != (size, accuracy) for s, a, _ in points)
    }
    assert {text.get_text() for text in plot.texts} == best
    assert {tuple(place) for place in plot.collections[0].get_offsets().tolist()} == {
        (size / 1000, 100 * accuracy) for size, accuracy, _ in points
    }


def test_bars_are_as_long_as_the_ratios() -> None:
    plot = figure.draw(LIGHT).axes[0]
    lengths = sorted(round(bar.get_width(), 6) for bar in plot.patches)
    ratios = sorted(round(row[name] / row["lobit_w1a1"], 6) for row in figure.latencies().values() for name in figure.PEERS)
    assert lengths == ratios
