"""The preflight, on machines that lack something: folders of links stand in for PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
NEEDED = ("sh", "dirname", "df", "awk", "cc", "c++", "gcc", "g++", "as", "ld")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder to use as PATH, holding all that the preflight and the compilers use."""
    for name in NEEDED:
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    return tmp_path


def preflight(machine: Path, python: str = "python3", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("sh") or "sh", SCRIPTS / "preflight", python],
        env={"PATH": str(machine), "LOBIT_SKIP_DISK": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(machine: Path, script: str) -> None:
    (machine / "python3").write_text("#!/bin/sh\n" + script)


def test_a_complete_machine_passes_in_silence(machine: Path) -> None:
    done = preflight(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("gone", "named", "debian", "fedora"),
    [
        (("cc", "gcc"), "a C compiler", "apt-get install -y gcc", "dnf install -y gcc"),
        (("c++", "g++"), "a C++ compiler", "apt-get install -y g++", "dnf install -y gcc-c++"),
        (("python3",), "there is no 'python3'", "apt-get install -y python3", "dnf install -y python3"),
    ],
)
def test_a_missing_program_is_named_with_the_lines_that_install_it(
    machine: Path, gone: tuple[str, ...], named: str, debian: str, fedora: str
) -> None:
    for name in gone:
        (machine / name).unlink()
    done = preflight(machine)
    assert done.returncode == 1
    for part in (named, debian, fedora, "Nothing was changed"):
        assert part in done.stderr
    assert "2." not in done.stderr.replace("3.12", "")


def test_an_old_python_is_named(machine: Path) -> None:
    fake_python(machine, 'case "$*" in *version_info*) exit 1 ;; --version) echo Python 3.9.2 ;; esac\n')
    done = preflight(machine)
    assert done.returncode == 1
    assert "Python 3.11 or later; 'python3' is Python 3.9.2" in done.stderr


@pytest.mark.parametrize(("module", "package"), [("ensurepip", "python3.11-venv"), ("Python.h", "python3.11-dev")])
def test_a_missing_part_of_python_is_named(machine: Path, module: str, package: str) -> None:
    fake_python(machine, f'case "$*" in *{module}*) exit 1 ;; *print*) echo 3.11 ;; esac\n')
    done = preflight(machine)
    assert done.returncode == 1
    assert f"apt-get install -y {package}" in done.stderr


def test_little_disk_space_is_named(machine: Path) -> None:
    (machine / "df").unlink()
    (machine / "df").write_text("#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\necho /dev/x 9 9 102400 9% /\n")
    (machine / "df").chmod(0o755)
    done = preflight(machine, LOBIT_SKIP_DISK="")
    assert done.returncode == 1
    assert "has 100 MB free" in done.stderr


def test_several_missing_things_are_listed_at_once(machine: Path) -> None:
    for name in ("cc", "gcc", "c++", "g++", "python3"):
        (machine / name).unlink()
    done = preflight(machine)
    assert [f"{n}. " in done.stderr for n in (1, 2, 3)] == [True] * 3


def test_a_step_shows_its_log_only_when_it_fails(tmp_path: Path) -> None:
    def step(command: str) -> subprocess.CompletedProcess[str]:
        arguments = ["sh", str(SCRIPTS / "step"), "Building", "a minute", str(tmp_path / "log"), "sh", "-c", command]
        return subprocess.run(arguments, capture_output=True, text=True, check=False, env=dict(os.environ))

    fine, failed = step("echo noise"), step("echo reason; exit 3")
    assert fine.returncode == 0
    assert "Building (a minute): done" in fine.stdout
    assert "noise" not in fine.stdout + fine.stderr
    assert failed.returncode == 3
    assert "reason" in failed.stderr
