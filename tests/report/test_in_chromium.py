"""Pages in a real browser: nothing fails to load, every picture shows, nothing is wider than the window, all text can be read, by day and by night."""

from __future__ import annotations

import shutil

import pytest

from lobit.report.run_page import write_run_page
from tests.report.browser import Browser
from tests.report.page_checks import CONTRAST, check_page
from tests.report.runs import finished

SIZES = (400, 1280)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind, with the number of pictures that it has: samples, curves, codes, errors."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        "W2A2": (write_run_page(finished("W2A2"), folder / "w2a2.html"), 24 + 3 + 8 + 1),
        "W1A1, one epoch": (write_run_page(finished("W1A1", validation=0, epochs=1), folder / "w1a1.html"), 24 + 3 + 8 + 1),
        "float": (write_run_page(finished(None), folder / "float.html"), 24 + 3),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("kind", ["W2A2", "W1A1, one epoch", "float"])
def test_a_run_page_shows_whole_and_readable(browser, pages, kind, width, scheme):
    path, pictures = pages[kind]
    found = check_page(browser, path, width=width, scheme=scheme)
    assert found["problems"] == []
    assert found["pictures"] == pictures
    assert found["texts"] > 200
    assert found["least"] >= CONTRAST


def test_the_page_follows_the_readers_setting_and_paper_is_white(browser, pages):
    path, _ = pages["W2A2"]
    grounds = {scheme: check_page(browser, path, width=1280, scheme=scheme)["ground"] for scheme in SCHEMES}
    assert min(grounds["light"]) > 250
    assert max(grounds["dark"]) < 60
    line = "getComputedStyle(document.querySelector('svg text')).fill"
    inked = "getComputedStyle(document.querySelector('img.ink')).filter"
    seen = {}
    for scheme in SCHEMES:
        browser.open(path, scheme=scheme)
        seen[scheme] = (browser.evaluate(line), browser.evaluate(inked))
    assert seen["light"][0] != seen["dark"][0]
    assert (seen["light"][1], seen["dark"][1]) == ("none", "invert(1)")
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert (browser.evaluate(line), browser.evaluate(inked)) == seen["light"]
    browser.call("Emulation.setEmulatedMedia", media="")


BROKEN = {
    "an image that is not there": ('<img src="missing.png" alt="a">', "asks for"),
    "an image that does not decode": ('<img src="data:image/png;base64,AAAA" alt="a" width="40" height="40">', "did not load"),
    "a picture without words": ('<svg viewBox="0 0 9 9" style="width: 50px"></svg>', "says nothing"),
    "a picture without size": ('<svg viewBox="0 0 9 9" style="width: 0"><title>t</title></svg>', "svg is 0"),
    "an error in a script": ("<script>throw new Error('no')</script>", "exception"),
    "a message to the console": ("<script>console.warn('hm')</script>", "console.warning"),
    "a page that is too wide": ('<div style="width: 3000px">wide</div>', "wide in a window"),
    "text that is too pale": ('<p style="color: #999; background: #fff">pale</p>', "contrast 2.85"),
    "text that fades": ('<p style="opacity: .4">faded</p>', "contrast"),
    "text on a dark picture of a gradient": ('<p style="background: linear-gradient(90deg, #222 50%, transparent 0)">dark</p>', "contrast"),
    "words too small in a picture": (
        '<svg viewBox="0 0 100 100" style="width: 50px"><title>t</title><text y="50" style="font-size: 8px">tiny</text></svg>',
        "pixels high",
    ),
    "a name given twice": ('<p id="a">a</p><p id="a">b</p>', "stands twice"),
    "a link to nowhere": ('<a href="#nowhere">there</a>', "leads nowhere"),
    "a heading of nothing": ("<table><tr><th>what</th></tr></table>", "has no scope"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_check_finds(browser, tmp_path, what):
    body, message = BROKEN[what]
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><body>{body}</body></html>')
    assert any(message in problem for problem in check_page(browser, page, width=400, scheme="light")["problems"])


def test_a_page_can_be_moved_away_from_its_run(browser, pages, tmp_path):
    path, _ = pages["W2A2"]
    alone = shutil.copy(path, tmp_path / "alone.html")
    assert check_page(browser, alone, width=400, scheme="dark")["problems"] == []


def test_a_page_prints(browser, pages, tmp_path):
    browser.open(pages["W2A2"][0])
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
