"""The demo's page, from rows as the demo makes them, in a real browser."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lobit.report.demo_page import write_report
from tests.report.browser import Browser
from tests.report.page_checks import check_page
from tests.report.test_run_page import Page


def rows():
    """Rows as results.json holds them: keys of JSON objects are text."""
    return [
        {
            "net": net,
            "accuracy_torch": 0.99,
            "accuracy_packed": 0.9875,
            "codes_compared": codes,
            "codes_equal": codes,
            "weight_bytes": size,
            "float_bytes": 604_288,
            "file_bytes": size + 7000,
            "packed_ms": {1: 0.0123, 100: 0.6},
            "torch_ms": {1: 0.1, 100: 3.8},
            "history": [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)],
            "page": f"runs/{net.lower()}/report.html",
        }
        for net, codes, size in (
            ("float", 0, 604_288),
            ("W1A1", 1_000_000, 22_272),
            ("W2A2", 1_000_000, 41_216),
            ("W4A4", 1_000_000, 79_104),
        )
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("demo") / "report.html"
    labels = np.arange(40) % 10
    logits = np.eye(10, dtype=np.float32)[labels] + rng.normal(0, 0.5, (40, 10)).astype(np.float32)
    write_report(path, rows(), rng.integers(0, 256, (40, 1, 8, 8), np.uint8), labels, logits)
    return path


def test_the_figures_of_one_bit_lead_and_each_net_has_its_page(page):
    shown = Page(page.read_text())
    for figure in ("98.75", "22.3", "12.3", "27.1 times less than float32", "All 3,000,000 codes"):
        assert figure in shown.text.replace("\xa0", " ")
    assert [asked for asked in shown.asked if not asked.startswith(("data:", "#"))] == [row["page"] for row in rows()]


def test_rows_read_back_from_the_file_make_the_same_page(page, tmp_path):
    again = tmp_path / "report.html"
    read = [dict(row.items()) for row in json.loads(json.dumps(rows()))]
    write_report(again, read, np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64), np.zeros((4, 10), np.float32))
    assert "27.1 times less than float32" in Page(again.read_text()).text


def test_it_shows_whole_and_readable(page, tmp_path):
    with Browser(tmp_path) as browser:
        for width in (400, 1280):
            for scheme in ("light", "dark"):
                found = check_page(browser, page, width=width, scheme=scheme)
                assert found["problems"] == []
                assert found["pictures"] == 3 + 24
