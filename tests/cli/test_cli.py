"""The shell: errors in one line with status 2, and commands that work when piped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from lobit.cli.app import run
from tests.training.test_training import tiny
from tests.warm import lobit


def fresh(*arguments, cwd=None, **env):
    """In a new interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "lobit.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path(__file__).parents[2]), **env},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "command", ["demo", "train", "eval", "export", "run", "bench", "summary", "verify", "report", "models", "recipes", "doctor"]
)
def test_every_command_has_help_with_an_example(command, capsys):
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Example: lobit {command}" in " ".join(out.split())


def test_train_export_verify_in_a_pipe(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=2).model_dump()))
    trained = fresh("train", "tiny.yaml", "--out", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "test accuracy" in trained.stdout
    assert "epoch 2/2" in trained.stderr
    assert "s left" in trained.stderr
    assert (tmp_path / "run" / "model.lobit").exists()
    assert lobit("export", "run", "net.lobit", cwd=tmp_path).returncode == 0
    assert (tmp_path / "net.lobit").read_bytes() == (tmp_path / "run" / "model.lobit").read_bytes()
    verified = lobit("verify", "run", "net.lobit", cwd=tmp_path)
    assert verified.returncode == 0
    assert "the same" in verified.stdout
    as_json = json.loads(lobit("verify", "run", "--json", "--batch", "100", cwd=tmp_path).stdout)
    assert as_json["ok"]
    assert as_json["batch"] == 360
    assert as_json["compared"] == as_json["equal"] > 0
    nets = json.loads(lobit("eval", "run", "--json", cwd=tmp_path).stdout)["nets"]
    assert [net["net"] for net in nets] == ["packed", "PyTorch"]
    assert nets[0]["correct"] == nets[1]["correct"]
    assert nets[0]["loss"] == nets[1]["loss"]
    assert len(json.loads(lobit("eval", "run/checkpoints/last.ckpt", "--json", cwd=tmp_path).stdout)["nets"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digits-w1a"], "did you mean 'digits-w1a1'"),
        (["train", "mnist-mlp-w1a1", "--data-dir", "/nowhere"], "does not exist"),
        (["export", "missing", "net.lobit"], "there is no checkpoint"),
        (["train"], "Missing argument"),
        (["train", "digits-w1a1", "--epochs", "0"], "epochs"),
        (["nonsense"], "No such command"),
        (["models", "z*"], "no model is called like 'z*'"),
        (["train", "digits-w1a1", "--out", ""], "it is empty"),
        (["demo", "--out", ""], "it is empty"),
        (["demo", "--seed", "4294967296"], "seed"),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["train", "digits-w1a1", "--out", str(tmp_path / "file" / "run")]) == 2
    assert "name a writable folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "w4a4.lobit", "runs/w2a2/report.html"])
def test_the_demo_looks_for_what_is_in_its_way_before_it_trains(tmp_path, capsys, name):
    (tmp_path / "d" / name).mkdir(parents=True)
    assert run(["demo", "--out", str(tmp_path / "d")]) == 2
    assert f"{name}' is in the way" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "d").iterdir()] == [name.split("/")[0]]


def test_debug_shows_the_traceback(tmp_path):
    done = lobit("train", "digits-w1a", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


class _Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.links = [], []
        self.pictures = 0

    def handle_starttag(self, tag, attrs):
        self.pictures += tag in ("svg", "img")
        (self.links if tag == "a" else self.sources).extend(value for name, value in attrs if name in ("src", "href", "xlink:href"))


@pytest.mark.slow
def test_the_demo_writes_its_table_nets_and_a_page_that_needs_nothing_else(tmp_path):
    done = fresh("demo", "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = json.loads((tmp_path / "here" / "results.json").read_text())
    assert [row["net"] for row in rows] == ["float", "W1A1", "W2A2", "W4A4"]
    assert all(row["codes_equal"] == row["codes_compared"] and row["accuracy_packed"] == row["accuracy_torch"] for row in rows)
    assert all(row["accuracy_packed"] > 0.95 for row in rows)
    assert all((tmp_path / "here" / f"{row['net'].lower()}.lobit").stat().st_size == row["file_bytes"] for row in rows)
    page = _Images()
    page.feed((tmp_path / "here" / "report.html").read_text())
    assert all(source.startswith(("data:", "#")) for source in page.sources)  # what stands in the page itself
    assert page.pictures == 3 + 24
    assert page.links == [f"runs/{row['net'].lower()}/report.html" for row in rows]
    assert all((tmp_path / "here" / link).read_text().startswith("<!doctype html>") for link in page.links)


@pytest.mark.parametrize("command", ["recipes", "models"])
def test_a_full_disk_behind_the_output_is_an_error_without_a_traceback(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "lobit.cli", command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
