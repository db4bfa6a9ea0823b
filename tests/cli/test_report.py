"""`lobit report`, and the page that `lobit train` leaves."""

from __future__ import annotations

import shutil

import pytest
import yaml

from lobit.cli.app import run
from tests.report.runs import finished
from tests.training.test_training import tiny
from tests.warm import python


def test_the_page_is_written_into_the_run_or_where_asked(tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished("W2A2"), folder)
    assert run(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"page: {folder / 'report.html'}\n"
    assert run(["report", str(folder), "--out", str(tmp_path / "other.html")]) == 0
    assert all(path.read_text().startswith("<!doctype html>") for path in (folder / "report.html", tmp_path / "other.html"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no run in"),
        (["missing", "--out", "no/page.html"], "in a folder that does not exist"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["report", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_a_page_unless_told_not_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=1).model_dump()))
    assert run(["train", "tiny.yaml", "--out", "with"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "page: with/report.html"
    assert (tmp_path / "with" / "report.html").is_file()
    assert run(["train", "tiny.yaml", "--out", "without", "--no-report"]) == 0
    assert "page:" not in capsys.readouterr().out
    assert not (tmp_path / "without" / "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_training_goes_on_where_the_packages_for_the_page_are_missing(tmp_path, package):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=1).model_dump()))
    code = f"""
import sys
from importlib.machinery import PathFinder
import lobit.training  # its own packages look for matplotlib by what is installed, and then import it
for name in [name for name in sys.modules if name.split(".")[0] == {package!r}]:
    del sys.modules[name]
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name.split(".")[0] == {package!r} else find(name, *rest))
from lobit.cli import main
sys.argv = ["lobit", "train", "tiny.yaml", "--out", "run"]
main()
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"no page: it needs {package}, which is not installed: pip install 'lobit[report]'; then: lobit report run"
    )
    assert (tmp_path / "run" / "model.lobit").is_file()
