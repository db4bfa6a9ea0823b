"""The page on the file format is enough to write a reader: the one it shows, which knows nothing of lobit, reads and runs the golden files."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node, file_bytes, read_file, write_file
from lobit.format.packing import fields_of_codes
from lobit.runtime import load
from tests.format.samples import SAMPLES

DOCS = Path(__file__).parents[2] / "docs"
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("v1-*.lobit"))
TYPES = [
    CodeType(alphabet, bits)
    for alphabet, widths in (
        ("unsigned", range(1, 9)),
        ("signed", range(2, 9)),
        ("odd", range(1, 9)),
        ("ternary", [2]),
        ("log2", range(2, 5)),
    )
    for bits in widths
]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("reader", "runner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("reader"), importlib.import_module("runner")


def test_both_scripts_need_the_standard_library_alone() -> None:
    for name, own in (("reader.py", set()), ("runner.py", {"reader"})):
        tree = ast.parse((DOCS / name).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= set(sys.stdlib_module_names) | own


def test_the_page_shows_both_scripts_whole() -> None:
    page = (DOCS / "file-format.md").read_text()
    assert '--8<-- "reader.py"' in page
    assert '--8<-- "runner.py"' in page


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_reader_reads_what_lobit_reads(path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    graph, constants = scripts[0].read(path)
    ours = read_file(path)
    assert constants.keys() == ours.constants.keys()
    for name, constant in ours.constants.items():
        values = constant.data if constant.code is None else constant.codes()
        assert np.array_equal(np.array(constants[name]).reshape(constant.shape), values)
    assert [(node["op"], node["output"]) for node in graph["nodes"]] == [(node.op, node.output) for node in ours.nodes]
    assert any(constant.code is not None for constant in ours.constants.values())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_runner_computes_the_stored_outputs_bit_for_bit(path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    graph, constants = scripts[0].read(path)
    stored = np.load(path.with_suffix(".npz"))
    for x, y in zip(stored["x"], stored["y"], strict=True):
        found = np.array(scripts[1].run(graph, constants, x.flatten().tolist()), np.float32)
        np.testing.assert_array_equal(found, y.flatten())


@pytest.mark.parametrize("name", ["mlp", "moves", "rows", "resized"])
def test_the_runner_computes_what_lobit_computes(name: str, tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    path = tmp_path / "net.lobit"
    write_file(path, SAMPLES[name]())
    graph, constants = scripts[0].read(path)
    session = load(path)
    (shape,) = session.graph.inputs.values()
    x = np.random.default_rng(7).normal(scale=3, size=(9, *shape)).astype(np.float32)
    found = session(x)
    for sample, y in zip(x, found[0] if isinstance(found, tuple) else found, strict=True):
        np.testing.assert_array_equal(np.array(scripts[1].run(graph, constants, sample.flatten().tolist())), y.flatten())


def with_weight(codes: Any, code: CodeType) -> bytes:
    """A file whose only product has these weights."""
    _, channels, height, width = codes.shape
    window = {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    nodes = [
        Node("chain", "sign", ("x",), "c", {"steps": [], "code": "odd1", "zero": 0}),
        Node("conv2d", "conv", ("c",), "s", window, {"weight": "w"}),
    ]
    return file_bytes(Graph({"x": (channels, height, width)}, nodes, ("s",), {"w": Constant.from_codes(codes, code)}))


@pytest.mark.parametrize("code", TYPES, ids=str)
def test_every_code_of_every_type_is_unpacked(code: CodeType, tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    shape = (3, 33, 2, 2)  # three words a row, the last not full
    codes = np.resize(np.random.default_rng(5).permutation(np.resize(code.levels, 3 * 33 * 4)), shape)
    assert set(codes.flatten()) == set(code.levels)
    path = tmp_path / "net.lobit"
    path.write_bytes(with_weight(codes, code))
    _, constants = scripts[0].read(path)
    assert constants["w"] == codes.flatten().tolist()


@pytest.mark.parametrize("code", TYPES, ids=str)
def test_the_table_of_fields_on_the_page_is_lobits(code: CodeType, scripts: tuple[ModuleType, ModuleType]) -> None:
    fields = fields_of_codes(np.array(code.levels), code).tolist()
    assert [scripts[0].code_of(field, code.alphabet.value, code.bits) for field in fields] == list(code.levels)


@pytest.mark.parametrize("where", [30, 700, -1])
def test_the_reader_refuses_a_damaged_file(where: int, tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    data = bytearray(GOLDEN[1].read_bytes())
    data[where] ^= 1
    path = tmp_path / "damaged.lobit"
    path.write_bytes(data)
    with pytest.raises((ValueError, KeyError)):
        scripts[0].read(path)


def test_the_scripts_run_from_the_command_line() -> None:
    graph = read_file(GOLDEN[0])
    stored = np.load(GOLDEN[0].with_suffix(".npz"))
    shown = subprocess.run([sys.executable, DOCS / "reader.py", GOLDEN[0]], capture_output=True, text=True, check=True).stdout
    assert all(node.op in shown for node in graph.nodes)
    numbers = " ".join(map(repr, stored["x"][0].flatten().tolist()))
    ran = subprocess.run([sys.executable, DOCS / "runner.py", GOLDEN[0]], input=numbers, capture_output=True, text=True, check=True).stdout
    np.testing.assert_array_equal(np.array(ran.split(), np.float32), stored["y"][0].flatten())


def test_the_example_of_the_page_is_that_of_the_golden_file() -> None:
    data = (GOLDEN[0].parent / "v1-mlp.lobit").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    graph = json.loads(header["__metadata__"]["graph"])
    start, end = header["fc2.weight"]["data_offsets"]
    shape = graph["constants"]["fc2.weight"]["shape"]
    words = -(-shape[1] // 64)
    page = (DOCS / "file-format.md").read_text()
    assert (
        f"is `odd1` of shape ({shape[0]}, {shape[1]}). It has 1 plane, {shape[0]} rows and {words} words a row: {shape[0] * words * 8} bytes"
        in page
    )
    assert f"padded to {end - start}" in page
    assert f"`[{start}, {end}]`, the data begin at byte {8 + length}, so the words stand from byte {8 + length + start} on" in page
    assert f'"digest": "{header["__metadata__"]["digest"][:8]}..' in page
