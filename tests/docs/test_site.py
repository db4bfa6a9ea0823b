"""What the site does beyond mkdocs: a menu of pages that exist, pictures that follow the site's own light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import griffe

from scripts import docs_hooks
from scripts.concepts_figure import PICTURE
from scripts.docs_types import TypesAsWritten

DOCS = Path(__file__).parents[2] / "docs"


def test_the_menu_leaves_out_pages_that_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "here.md").write_text("# Here")
    nav = [
        {"Here": "here.md"},
        {"Gone": "gone.md"},
        {"Group": [{"Gone": "gone.md"}]},
        {"Other": [{"Here": "here.md"}, {"Gone": "gone.md"}]},
    ]
    config = docs_hooks.on_config(SimpleNamespace(nav=nav, docs_dir=str(tmp_path)))
    assert config.nav == [{"Here": "here.md"}, {"Other": [{"Here": "here.md"}]}]


def test_pictures_stand_in_the_page_and_follow_its_colour_scheme() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_path="concepts.md"))
    html = '<p><img alt="A &quot;layer&quot;" src="pictures/concepts.svg" /> <img src="https://elsewhere/x.svg"/> <img src="gone.svg"/></p>'
    made = docs_hooks.on_page_content(html, page, SimpleNamespace(docs_dir=str(DOCS)), None)
    assert made.count("<svg") == 1
    assert 'src="gone.svg"' in made
    assert "https://elsewhere/x.svg" in made
    assert "prefers-color-scheme" not in made
    assert ":root" not in made
    assert "[data-md-color-scheme=slate] {" in made
    assert "[data-md-color-scheme=default] {" in made
    assert len(re.findall(r"--text: ", made)) == len(re.findall(r"--text: ", PICTURE.read_text())) == 2


def test_rules_of_a_drawn_picture_reach_nothing_else_of_the_page() -> None:
    drawn = (DOCS / "pictures" / "readme.svg").read_text()
    assert ">*{" in drawn
    assert ">*{" not in docs_hooks.inline_picture(drawn)
    assert ">.picture *{" in docs_hooks.inline_picture(drawn)


def test_nothing_is_loaded_from_elsewhere() -> None:
    settings = (DOCS.parent / "mkdocs.yml").read_text()
    assert "font: false" in settings
    assert "http" not in settings
    for path in [*DOCS.rglob("*.css"), *DOCS.rglob("*.svg")]:
        assert not re.findall(r"url\((?!#)|@import|(?:href|src)=\"(?!#)", path.read_text()), path


def test_types_of_parameters_are_shown_as_their_docstrings_have_them() -> None:
    package = griffe.load(
        "lobit",
        search_paths=[DOCS.parent / "src"],
        extensions=griffe.load_extensions("dataclasses", TypesAsWritten),
        docstring_parser="numpy",
    )

    def shown(path: str) -> dict[str, tuple[str, str | None]]:
        sections = package[path].docstring.parsed
        return {p.name: (str(p.annotation), p.value) for s in sections if s.kind.value == "parameters" for p in s.value}

    assert shown("runtime.session.load") == {"path": ("path-like", None), "threads": ("int", "1"), "isa": ("str | None", "None")}
    assert shown("runtime.session.Session")["prefer"] == ('"planes", "bytes"', "None")
    assert shown("training.run.train")["recipe"] == ("str, path-like or Recipe", None)
    assert shown("bits.CodeType")["bits"] == ("int", None)


def test_the_site_is_built_so_that_a_broken_link_fails() -> None:
    for name in ("Makefile", ".ci/run"):
        command = next(line for line in (DOCS.parent / name).read_text().splitlines() if "mkdocs build" in line)
        assert command.endswith("--strict")  # with --quiet, mkdocs counts no warnings
