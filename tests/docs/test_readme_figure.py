"""The README's figure is what its command draws from the committed results."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
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


def with_sweep(folder: Path) -> Path:
    shutil.copy(figure.LOGS / figure.LATENCIES, folder)
    rows = [
        {"weights": w, "activations": a, "file_bytes": 1000 * w + a, "accuracy": 0.9 + 0.01 * w - 0.001 * (a == 1)}
        for w in (1, 2, 32)
        for a in (1, 2)
    ]
    (folder / "sweep.json").write_text(json.dumps({"sweep": 1, "name": "some-net", "rows": rows}))
    (folder / "other.json").write_text("[1]")
    return folder


def test_a_committed_sweep_gets_a_second_panel(tmp_path: Path) -> None:
    logs = with_sweep(tmp_path)
    drawn = figure.draw(LIGHT, logs)
    latencies, accuracies = drawn.axes
    assert [text.get_text() for text in accuracies.texts] == ["W1A2", "W2A2", "W32A2"]
    assert len(latencies.patches) == len(figure.PEERS) * 2
    assert "some-net" in figure.title(logs)
    assert len(figure.draw(LIGHT).axes) == (2 if figure.sweeps() else 1)


def test_the_front_has_the_nets_that_none_beats() -> None:
    points = [
        figure.Point(name, size, accuracy)
        for name, size, accuracy in (("a", 3, 0.9), ("b", 1, 0.8), ("c", 2, 0.7), ("d", 4, 0.9), ("e", 1, 0.7))
    ]
    assert [point.bits for point in figure.front(points)] == ["b", "a"]


def test_bars_are_as_long_as_the_ratios() -> None:
    plot = figure.draw(LIGHT).axes[0]
    lengths = sorted(round(bar.get_width(), 6) for bar in plot.patches)
    ratios = sorted(round(row[name] / row["lobit_w1a1"], 6) for row in figure.latencies().values() for name in figure.PEERS)
    assert lengths == ratios
