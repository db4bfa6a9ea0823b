"""README.ko.md keeps step with README.md: the same sections, code, tables, links, pictures, and every number in its section."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def sections(name: str) -> list[str]:
    """The page cut ahead of each heading; code blocks have none."""
    text = (ROOT / name).read_text()
    hidden = re.sub(r"^```.*?^```", lambda match: match[0].replace("#", "\0"), text, flags=re.S | re.M)
    return [part.replace("\0", "#") for part in re.split(r"^(?=#)", hidden, flags=re.M)]


ENGLISH, KOREAN = sections("README.md"), sections("README.ko.md")
PAIRS = [pytest.param(a, b, id=(a.splitlines()[0] if a else "top")) for a, b in zip(ENGLISH, KOREAN, strict=False)]


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```.*?^```", text, re.S | re.M)


def prose(text: str) -> str:
    """Without code blocks and targets of links."""
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def test_the_headings_are_as_many_and_as_deep() -> None:
    assert [len(part) - len(part.lstrip("#")) for part in ENGLISH] == [len(part) - len(part.lstrip("#")) for part in KOREAN]
    assert len(ENGLISH) > 5


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_a_section_has_the_same_code_and_tables(english: str, korean: str) -> None:
    assert code_blocks(english) == code_blocks(korean)

    def rows(text: str) -> list[int]:
        return [line.count("|") for line in text.splitlines() if line.startswith("|")]

    assert rows(english) == rows(korean)


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_a_section_names_the_same_things_in_code_type(english: str, korean: str) -> None:
    assert Counter(re.findall(r"`([^`\n]+)`", prose(english))) == Counter(re.findall(r"`([^`\n]+)`", prose(korean)))


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_a_section_has_every_number(english: str, korean: str) -> None:
    missing = Counter(NUMBER.findall(prose(english))) - Counter(NUMBER.findall(prose(korean)))
    assert not missing, f"README.ko.md lacks {sorted(missing)} in its section {korean.splitlines()[0]!r}"


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_numbers_of_the_tables_stand_in_the_same_rows(english: str, korean: str) -> None:
    for line, translated in zip(*([row for row in text.splitlines() if row.startswith("|")] for text in (english, korean)), strict=True):
        assert not Counter(NUMBER.findall(prose(line))) - Counter(NUMBER.findall(prose(translated))), translated


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_a_section_has_the_same_links_and_pictures(english: str, korean: str) -> None:
    def targets(text: str) -> Counter[str]:
        return Counter(target for target in re.findall(r"\]\(([^)]*)\)", text) if not target.startswith(("#", "README")))

    assert targets(english) == targets(korean)
    assert english.count("![") == korean.count("![")


def test_each_page_leads_to_the_other() -> None:
    assert "](README.ko.md)" in ENGLISH[1]
    assert "](README.md)" in KOREAN[1]


def test_links_within_the_pages_lead_to_a_heading() -> None:
    for parts in (ENGLISH, KOREAN):
        anchors = {
            re.sub(r"[^\w\- ]", "", part.splitlines()[0].lstrip("# ")).lower().replace(" ", "-") for part in parts if part.startswith("#")
        }
        for target in re.findall(r"\]\(#([^)]*)\)", "".join(parts)):
            assert target in anchors
