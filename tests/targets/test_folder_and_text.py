"""Where exported C goes and what it may contain: folders are whole or untouched, names from a file are harmless, what C cannot have is refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.errors import ConfigError, ExportError, FormatError, ShapeError
from lobit.format import Graph, check_graph, write_file
from lobit.targets import export_c, folder
from lobit.targets.arena import Block, place
from lobit.targets.text import comment
from tests.format.samples import convnet, mlp
from tests.targets.machine import STRICT, need, run

HOSTILE = [
    "*/ int evil(void) { return 1; } /*",
    'a"; system("x"); //',
    "x??/",
    "back\\slash\\",
    "%s%n{x0}{to}",
    "ünïcödé☃",
    "#define main",
    "*" + "/" * 100,
]


def hostile(graph: Graph) -> Graph:
    """The same graph with names that would like to be C."""
    values = {node.output: f"{HOSTILE[i % len(HOSTILE)]}{i}v" for i, node in enumerate(graph.nodes)}
    values |= {name: f"{HOSTILE[0]} {name}" for name in graph.inputs}
    nodes = [
        replace(node, name=f"{HOSTILE[i % len(HOSTILE)]}{i}", inputs=tuple(values[x] for x in node.inputs), output=values[node.output])
        for i, node in enumerate(graph.nodes)
    ]
    inputs = {values[name]: shape for name, shape in graph.inputs.items()}
    return check_graph(Graph(inputs, nodes, tuple(values[name] for name in graph.outputs), graph.constants))


def test_names_of_a_hostile_file_stay_inside_comments_and_strings(tmp_path: Path) -> None:
    need("gcc", "make")
    export_c(hostile(mlp()), tmp_path / "c")
    for path in (tmp_path / "c").glob("net*"):
        text = path.read_text()
        assert text.isascii()
        assert "*/ int evil" not in text
        assert 'system("' not in text
        assert "??/" not in text
    flags = " ".join(["-Werror", "-Wcomment", "-Wtrigraphs"])
    assert b"PASS" in run("make", "-C", tmp_path / "c", "test", f"CFLAGS={flags}")


@given(st.text(max_size=200))
def test_a_comment_holds_only_harmless_characters(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_., ()+-]{0,80}", comment(name))


@pytest.mark.parametrize(
    "name", ["", "int", "9net", "Net", "a-b", "a" * 41, "lb_net", "../net", "net;", "ñ", "host", "stdint", "string", 3, None]
)
def test_a_prefix_that_c_could_not_bear_is_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="letters"):
        export_c(mlp(), tmp_path / "c", name=name)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["c", "test", "internal", "values", "arena", "input", "net_test"])
def test_a_prefix_that_is_near_a_name_of_ours_compiles(name: str, tmp_path: Path) -> None:
    need("gcc", "make")
    export_c(mlp(), tmp_path / "c", name=name)
    assert b"PASS" in run("make", "-C", tmp_path / "c", "test", "CFLAGS=-Werror")


def test_float_layers_are_refused_by_name_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'.*' \((conv2d|linear)_f32\)"):
        export_c(convnet(), tmp_path / "c")
    assert not any(tmp_path.iterdir())


def test_an_earlier_export_is_replaced_and_equal_exports_are_equal_bytes(tmp_path: Path) -> None:
    target = tmp_path / "c"
    report = export_c(mlp(), target)
    first = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    (target / "build").mkdir()
    (target / "build" / "test").write_text("an old program")
    again = export_c(mlp(), target)
    assert again == report
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()} == first
    assert not (target / "build").exists()
    assert sorted(tmp_path.iterdir()) == [target]


def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="not empty"):
        export_c(mlp(), other)
    export_c(mlp(), tmp_path / "c")
    (tmp_path / "c" / "main.c").write_text("mine")
    with pytest.raises(ExportError, match=r"main\.c"):
        export_c(mlp(), tmp_path / "c")
    assert (tmp_path / "c" / "main.c").read_text() == "mine"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="no folder"):
        export_c(mlp(), tmp_path / "file")
    with pytest.raises(ExportError, match="does not exist"):
        export_c(mlp(), tmp_path / "missing" / "c")


def test_a_failure_while_writing_leaves_the_earlier_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "c"
    export_c(mlp(), target)
    before = (target / "net.c").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        export_c(mlp(), target)
    assert (target / "net.c").read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [target]


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nosuch"):
        export_c(tmp_path / "nosuch.lobit", tmp_path / "c")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "example", [np.zeros((0, 13), np.float32), np.zeros((2, 12), np.float32), np.zeros((2, 13)), np.full((2, 13), np.nan, np.float32), []]
)
def test_an_example_that_does_not_fit_is_refused(example: object, tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        export_c(mlp(), tmp_path / "c", example=example)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_the_example_of_the_readme_compiles(tmp_path: Path) -> None:
    need("gcc")
    write_file(tmp_path / "net.lobit", mlp())
    export_c(tmp_path / "net.lobit", tmp_path / "c")
    readme = (tmp_path / "c" / "README.md").read_text()
    example = re.search(r"```c\n(.*?)```", readme, re.S)
    assert example is not None
    (tmp_path / "main.c").write_text(example[1])
    sources = [tmp_path / "c" / name for name in ("net.c", "lobit_values.c", "lobit_stages.c", "lobit_pools.c", "lobit_products.c")]
    run("gcc", *STRICT, f"-I{tmp_path / 'c'}", tmp_path / "main.c", *sources, "-o", tmp_path / "main")
    run(tmp_path / "main")


def test_the_generated_test_fails_when_a_weight_changes(tmp_path: Path) -> None:
    need("gcc", "make")
    export_c(mlp(), tmp_path / "c")
    source = tmp_path / "c" / "net.c"
    text = source.read_text()
    at = text.index("n1_weights")
    word = re.compile(r"0x[0-9a-f]{8}u|(?<=[{ ,])-?\d+(?=,)").search(text, text.index("{", at))
    assert word is not None
    source.write_text(text[: word.start()] + ("0x00000000u" if word[0].startswith("0x") else "77") + text[word.end() :])
    with pytest.raises(AssertionError, match="FAIL"):
        run("make", "-C", tmp_path / "c", "test")


BLOCKS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 12), st.integers(0, 6)), max_size=25)


@given(BLOCKS)
def test_no_two_blocks_that_live_together_overlap(sizes: list[tuple[int, int, int]]) -> None:
    blocks = [Block(words, first, first + length) for words, first, length in sizes]
    words = place(blocks)
    for a in blocks:
        assert 0 <= a.offset <= words - a.words
        for b in blocks:
            together = a.first <= b.last and b.first <= a.last
            assert a is b or not together or a.offset + a.words <= b.offset or b.offset + b.words <= a.offset
    assert words >= max((sum(b.words for b in blocks if b.first <= t <= b.last) for t in range(20)), default=0)
