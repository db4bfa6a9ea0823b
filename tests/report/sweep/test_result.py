"""Results: the Pareto front against its definition, and files that read back as they were."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.errors import ConfigError
from lobit.report.sweep import SweepResult, SweepRow, pareto_front, read_result
from lobit.report.sweep.page import write_page, write_pictures
from lobit.report.sweep.table import markdown, print_tables

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


def row(weights, activations, accuracy, size, *, seeds=(1,), spread=0.0, **changes):
    fields = {
        "weights": weights,
        "activations": activations,
        "seeds": seeds,
        "accuracy": accuracy,
        "accuracy_low": accuracy - spread,
        "accuracy_high": accuracy + spread,
        "validation_accuracy": None,
        "exact": 32 not in (weights, activations),
        "file_bytes": size,
        "weight_bytes": size - 100,
        "float_bytes": 4000,
        "macs_by_width": {"W8A8": 10, f"W{weights}A{activations}": 90},
        "bit_operations": 640 + 90 * weights * activations,
        "joules": size * 1e-12,
        "latency_ms": {"1": 0.01, "100": 0.5},
        "seconds": 1.5,
    }
    return SweepRow(**fields | changes)


def result(*rows, failures=None):
    machine = {"cpu": "a <CPU>", "isa": "avx2", "versions": {"lobit": "0"}}
    recipe = {"description": "", "model": {"name": "m"}, "data": {"name": "d"}, "epochs": 3}
    widths = (tuple(dict.fromkeys(getattr(row, side) for row in rows)) for side in ("weights", "activations"))
    return SweepResult("r", recipe, *widths, 360, machine, rows, failures or {}, "runs/sweep-r")


GRID = result(
    row(1, 1, 0.90, 1000, seeds=(1, 2), spread=0.01),
    row(1, 32, 0.97, 4100, seeds=(1, 2)),
    row(2, 1, 0.95, 2000, seeds=(1, 2)),
    row(2, 32, 0.96, 4200, seeds=(1, 2)),
    failures={"w1a1-seed3": "the loss is <nan>"},
)


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_the_front_is_what_no_point_dominates(points):
    expected = {i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    front = pareto_front(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_the_front_of_a_result_is_made_of_its_rows():
    assert [found.bits for found in GRID.front("file_bytes")] == ["W1A1", "W2A1", "W1A32"]


def test_a_result_reads_back_as_it_was(tmp_path):
    (tmp_path / "sweep.json").write_text(GRID.to_json())
    assert read_result(tmp_path / "sweep.json") == GRID


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sweep": 1}', '{"sweep": 1, "rows": [{"seeds": [1]}]}', '{"sweep": 99}'])
def test_a_file_that_is_no_result_is_one_error_that_names_it(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json"):
        read_result(tmp_path / "other.json")


def test_a_missing_result_says_what_writes_it(tmp_path):
    with pytest.raises(ConfigError, match="lobit sweep"):
        read_result(tmp_path / "none.json")


def test_the_csv_has_a_line_for_each_row_and_columns_for_widths_and_batches():
    lines = list(csv.DictReader(io.StringIO(GRID.to_csv())))
    assert [(line["weights"], line["activations"], line["seeds"]) for line in lines][:2] == [("1", "1", "1 2"), ("1", "32", "1 2")]
    assert lines[0]["macs_W8A8"] == "10"
    assert lines[0]["macs_W1A1"] == "90"
    assert lines[0]["macs_W2A1"] == "0"
    assert lines[0]["latency_ms_batch_100"] == "0.5"
    assert float(lines[0]["accuracy"]) == 0.90


@pytest.mark.parametrize("seeds", [1, 2])
def test_tables_fit_80_columns_and_lose_nothing(seeds):
    from rich.console import Console

    wide = [
        row(w, a, 0.9972, 608_800, seeds=tuple(range(seeds)), joules=13.6e-6, bit_operations=1_343_400_000)
        for w in (1, 32)
        for a in (1, 32)
    ]
    console = Console(file=io.StringIO(), width=80)
    print_tables(result(*wide), console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for needed in ("W32A32 *", "99.72", "608.8", "1343.4", "13600.0", "batch 100", "front"):
        assert needed in text


def test_a_combination_that_failed_is_named_in_the_grid():
    three = result(*GRID.rows[:3])
    assert "| **W2** | 95.00 (95.00-95.00) | failed |" in markdown(three)


def test_markdown_has_both_tables_and_the_note_of_float():
    text = markdown(GRID)
    assert "| accuracy, % | A1 | A32 |" in text
    assert "| **W1** | 90.00 (89.00-91.00) | 97.00 (97.00-97.00) |" in text
    assert "| W1A32 \\* |" in text
    assert "float32 weights" in text
    assert "float32 weights" not in markdown(result(row(1, 1, 0.9, 1000)))


def test_pictures_and_page_stand_alone_and_quote_what_they_are_given(tmp_path):
    write_pictures(GRID, tmp_path)
    for name in ("heatmap", "pareto", "energy"):
        svg = (tmp_path / f"{name}.svg").read_text()
        assert svg.startswith("<svg")
        assert "prefers-color-scheme: dark" in svg
    write_page(GRID, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 3
    assert "a &lt;CPU&gt;" in page
    assert "the loss is &lt;nan&gt;" in page
    assert "W1A1" in page


def test_a_sweep_of_one_net_has_pictures_too(tmp_path):
    write_pictures(result(row(1, 1, 1.0, 1000)), tmp_path)
    assert (tmp_path / "heatmap.svg").exists()
    assert json.loads(result(row(1, 1, 1.0, 1000)).to_json())["rows"][0]["accuracy"] == 1.0
