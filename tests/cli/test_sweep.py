"""`lobit sweep` in the shell: one clear error for what it cannot do, 80 columns, JSON alone where JSON is asked for."""

from __future__ import annotations

import json

import pytest
import yaml

from lobit.cli.app import run
from tests.training.test_training import tiny
from tests.warm import lobit


def test_it_has_help_with_an_example(capsys):
    assert run(["sweep", "--help"]) == 0
    assert "Example: lobit sweep" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-w2a"], "did you mean 'digits-w2a2'"),
        (["digits-w2a2", "--weights", "1,x"], "weights is '1,x', of which 'x' is no whole number"),
        (["digits-w2a2", "--weights", ""], "weights is ''"),
        (["digits-w2a2", "--activations", "16"], "activations has 16; widths are 1 to 8, or 32"),
        (["digits-w2a2", "--seeds", "1,1"], "seeds has 1 twice"),
        (["digits-w2a2", "--jobs", "0"], "jobs"),
        (["digits-w2a2", "--out", ""], "it is empty"),
        (["digits-w2a2", "--resume", "--overwrite"], "exclude each other"),
        (["mnist-mlp-w1a1", "--data-dir", "/nowhere"], "does not exist"),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sweep", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_tables_and_json_in_a_pipe(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=1).model_dump()))
    arguments = ("sweep", "tiny.yaml", "--weights", "1", "--activations", "2,32", "--seeds", "1,2", "--jobs", "1")
    first = lobit(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert max(map(len, first.stdout.splitlines())) <= 80
    assert "…" not in first.stdout
    assert "pictures: runs/sweep-tiny/sweep.html" in first.stdout
    lines = first.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("w1a2-seed1: accuracy ")
    assert "1 of 4 nets, about " in lines[0]
    again = lobit(*arguments, cwd=tmp_path)
    assert again.returncode == 2
    assert "'runs/sweep-tiny' holds a sweep; --resume goes on with it" in again.stderr
    as_json = lobit(*arguments, "--resume", "--json", cwd=tmp_path)
    assert as_json.returncode == 0, as_json.stderr
    assert as_json.stderr == "4 of 4 nets are there already\n"
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "runs" / "sweep-tiny" / "sweep.json").read_text())
