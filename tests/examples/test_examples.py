"""The examples run from any folder, in seconds, print what they promise, and stay as short as they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lobit

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, cwd: Path, *arguments: str, before: str = "pass") -> str:
    """Output of an example in a fresh interpreter; `before` runs first in it."""
    start = f"{before}; import runpy, sys; sys.argv[0] = {str(EXAMPLES / script)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", start, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def percent(text: str, line: str) -> float:
    found = re.search(rf"{line}\s*([\d.]+)%", text)
    assert found is not None, text
    return float(found[1])


def test_a_model_of_ones_own_keeps_its_accuracy_low_bit_and_packed(tmp_path: Path) -> None:
    printed = run("bring_your_own_model.py", tmp_path, "net.lobit")
    assert percent(printed, "float:") > 95
    assert percent(printed, "low-bit, in PyTorch:") > 95
    assert percent(printed, "low-bit, packed:") == percent(printed, "low-bit, in PyTorch:")
    assert re.search(r"^stem\.0 +Conv2d +W8A8", printed, re.M)
    assert re.search(r"^block1\.conv1 +Conv2d +W2A2", printed, re.M)
    assert re.search(r"^down\.0 +Conv2d +W2A4", printed, re.M)
    assert "inexact" not in printed
    assert printed.count("the same") == 2
    assert lobit.load(tmp_path / "net.lobit").value_names


def test_a_loop_of_ones_own_learns_and_repeats_itself_by_its_seed(tmp_path: Path) -> None:
    first, again = (run("your_own_training_loop.py", tmp_path, "mlp.lobit", "--seed", "1") for _ in range(2))
    assert percent(first, "packed: test accuracy") > 95
    assert first == again
    assert "W1A1" in first


def test_a_packed_net_runs_where_torch_does_not_exist(tmp_path: Path) -> None:
    printed = run("run_without_torch.py", tmp_path, before="import sys; sys.modules['torch'] = None; sys.modules['lightning'] = None")
    right = re.search(r"([\d.]+)% of 360 digits are right; the first ten: \[(\d, ){9}\d\]", printed)
    assert right is not None
    assert float(right[1]) > 95


def test_running_a_packed_net_leaves_torch_alone_where_it_exists(tmp_path: Path) -> None:
    assert "torch was not imported" in run("run_without_torch.py", tmp_path)


def test_a_packed_net_runs_in_20_lines() -> None:
    assert len((EXAMPLES / "run_without_torch.py").read_text().splitlines()) <= 20


def test_a_quantizer_of_ones_own_learns_and_is_exported_with_its_codes(tmp_path: Path) -> None:
    printed = run("your_own_quantizer.py", tmp_path, "ternary.lobit")
    assert percent(printed, "packed: test accuracy") > 90
    assert "my_ternary, lsq" in printed
    assert printed.count("the same") == 2
    weights = [constant.code for constant in lobit.load(tmp_path / "ternary.lobit").graph.constants.values() if constant.code is not None]
    assert lobit.CodeType("ternary", 2) in weights


def test_a_quantizer_takes_20_lines_and_public_names() -> None:
    tree = ast.parse((EXAMPLES / "your_own_quantizer.py").read_text())
    [quantizer] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert quantizer.end_lineno is not None
    assert quantizer.end_lineno - quantizer.decorator_list[0].lineno + 1 <= 20


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_to_run_it_and_uses_public_names(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert f"Run: python {path.name}" in (ast.get_docstring(tree) or "")
    assert f"({path.name})" in (EXAMPLES / "README.md").read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lobit."):
            module = __import__(node.module or "", fromlist=["__all__"])
            assert {name.name for name in node.names} <= set(module.__all__)
        if isinstance(node, ast.Attribute):
            assert not re.match(r"_(?!_)", node.attr)
