from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def doctor(*arguments, hidden=(), **env):
    """The command in a pipe, with modules hidden."""
    code = f"import sys; sys.modules.update(dict.fromkeys({list(hidden)!r})); from lobit.cli import main; sys.argv[1:] = ['doctor', *{list(arguments)!r}]; main()"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80", **env}
    )


def test_it_works_without_torch_in_a_pipe_of_80_columns():
    done = doctor(hidden=("torch", "lightning", "yaml", "pooch", "jinja2", "matplotlib"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "lobit works here" in done.stdout


def test_json_is_one_value_and_nothing_else():
    done = doctor("--json", hidden=("torch",))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_status_is_1_where_something_essential_is_broken(arguments):
    done = doctor(*arguments, hidden=("lobit._native",))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "native module" in done.stdout
    assert "make setup" in done.stdout


def test_an_instruction_set_that_is_none_is_named():
    done = doctor(LOBIT_ISA="mmx")
    assert done.returncode == 1
    assert "LOBIT_ISA is 'mmx'" in " ".join(done.stdout.split())
