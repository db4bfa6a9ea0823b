"""docs/sweep.md shows what the committed results of the sweeps say."""

from __future__ import annotations

import pytest

from lobit.report.sweep import Grid, read_result
from lobit.report.sweep.page import write_pictures
from scripts.sweep_page import NAMES, PAGE, PICTURES, log, prefix, with_tables

STALE = "run `python -m scripts.sweep_page` and commit docs/"


def test_the_tables_are_those_of_the_committed_results():
    assert PAGE.read_text() == with_tables(PAGE.read_text()), STALE


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_are_those_of_the_committed_results(name, tmp_path):
    write_pictures(read_result(log(name)), tmp_path, prefix(name))
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 3
    for path in drawn:
        assert path.read_bytes() == (PICTURES / path.name).read_bytes(), STALE
        assert f"pictures/{path.name}" in PAGE.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_results_are_whole_grids_in_both_forms(name):
    result = read_result(log(name))
    assert [row.bits for row in result.rows] == [cell.bits for cell in Grid().cells]
    assert not result.failures
    assert log(name, ".csv").read_text() == result.to_csv()
