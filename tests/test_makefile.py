"""The Makefile's care for what it did not make: environments of others, and clones that were moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as setting up reads."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "native").mkdir()
    (tmp_path / "CMakeLists.txt").touch()
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=clone, env=env | {"LOBIT_SKIP_DISK": "1"}, capture_output=True, text=True, check=False)


def test_a_foreign_environment_is_left_alone(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / "precious").write_text("mine")
    done = make(clone, "setup")
    assert done.returncode == 2
    assert "was not made by lobit; move it away" in done.stderr
    assert (clone / ".venv" / "precious").read_text() == "mine"


@pytest.mark.parametrize(("place", "made_anew"), [("here", False), ("/some/where/else", True)])
def test_a_moved_clone_makes_its_environment_anew(clone: Path, place: str, made_anew: bool) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".lobit-place").write_text(f"{clone.resolve() if place == 'here' else place}\n")
    for stamp in (".lobit-environment", ".lobit-native"):
        (clone / ".venv" / stamp).touch()
    plan = make(clone, "-n", "setup").stdout
    assert ("-m venv .venv" in plan) is made_anew
