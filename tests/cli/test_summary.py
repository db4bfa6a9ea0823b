from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lobit.cli.app import run

MLP = "tests/golden/v1-mlp.lobit"


def without_torch(*arguments):
    """The command in a pipe, on a machine without torch or anything else of training."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(('torch', 'lightning', 'yaml', 'pooch')))"
    code = f"{hidden}; from lobit.cli import main; sys.argv[1:] = {list(arguments)!r}; main()"
    env = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)


def test_a_file_needs_no_torch_and_fits_80_columns_in_a_pipe():
    done = without_torch("summary", MLP, "--measure")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "W1A1" in done.stdout
    assert "energy of a sample, estimate" in done.stdout


def test_json_is_one_value_and_nothing_else():
    done = without_torch("summary", MLP, "--json", "--batch", "7")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["batch"], found["parameters"]) == (7, 1576)


def test_a_model_without_torch_names_the_line_that_installs_it():
    done = without_torch("summary", "digits-convnet", "--bits", "W1A1")
    assert done.returncode == 2
    assert "pip install 'lobit[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-convne"], "did you mean 'digits-convnet'"),
        (["digits-convnet", "--bits", "W0A1"], "not 0"),
        (["digits-convnet", "--batch", "0"], "batch is 0"),
        ([MLP, "--bits", "W1A1"], "has its own"),
        (["README.md"], "no .lobit file"),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments, message, capsys):
    assert run(["summary", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
