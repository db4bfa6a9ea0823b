"""A command that is stopped ends with one line, which says how to go on, and 128 plus the signal's number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lobit.cli import app, stopping
from lobit.errors import Interrupted, LobitError


def stops(command, error, monkeypatch, arguments):
    """Run a command whose body raises ``error``."""

    def body(*_, **__):
        raise error

    found = next(entry for entry in app.app.registered_commands if entry.callback.__name__ == command)
    real = found.callback
    body.__signature__ = __import__("inspect").signature(real, eval_str=True)
    body.__name__ = command
    monkeypatch.setattr(found, "callback", body)
    return app.run([command, *arguments])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("demo", []), ("train", ["r"]), ("export", ["run", "a b.lobit"]), ("verify", ["run", "f"]), ("models", []), ("recipes", [])],
)
def test_every_command_ends_in_one_line_that_says_how_to_start_again(command, arguments, monkeypatch, capsys):
    assert stops(command, KeyboardInterrupt(), monkeypatch, arguments) == 130
    told = capsys.readouterr().err
    assert (
        told == f"lobit: interrupted; start again with: lobit {' '.join([command, *arguments]).replace('a b.lobit', repr('a b.lobit'))}\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--resume"], ["--overwrite", "--epochs", "7", "--seed=3"]])
def test_what_can_be_resumed_says_so_with_the_same_settings_quoted(arguments, monkeypatch, capsys):
    given = ["my recipe.yaml", "--out", "runs/it's here", *arguments]
    assert stops("train", Interrupted("stopped"), monkeypatch, given) == 130
    rest = "".join(f" {word}" for word in arguments if word not in ("--overwrite", "--resume"))
    told = capsys.readouterr().err
    assert told == f"""lobit: interrupted; go on with: lobit train 'my recipe.yaml' --out 'runs/it'"'"'s here'{rest} --resume\n"""


def test_an_error_that_only_a_stop_caused_is_no_error(monkeypatch, capsys):
    """Libraries turn a KeyboardInterrupt into all sorts of things."""

    class Body:
        def __call__(self, *_, **__):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except KeyboardInterrupt:
                raise LobitError("cannot import torch") from None

    body = Body()
    monkeypatch.setattr(app, "app", body)
    assert app.run(["models"]) == 130
    assert capsys.readouterr().err == "lobit: interrupted; start again with: lobit models\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def child(code, *, before=""):
    """A process that runs ``code`` as the body of a command, and says "ready" before it, unless the code does."""
    ready = "" if "ready" in code else "    print('ready', flush=True)"
    text = f"""
import os, signal, sys, time
{before}
from lobit.cli import app
def body(*_, **__):
{ready}
{code}
app.app = body
sys.exit(app.run(["train", "a b"]))
"""
    running = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "ready\n"
    return running


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "stopped, as its terminal was closed")],
)
def test_signals_that_ask_to_stop_end_the_command_alike(number, word):
    running = child("    time.sleep(60)")
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert told == f"lobit: {word}; start again with: lobit train 'a b'\n"


def test_a_second_signal_ends_the_process_at_once_and_one_of_the_same_wish_does_not():
    running = child(
        "    try: print('ready', flush=True); time.sleep(60)\n    except KeyboardInterrupt: print('stopping', flush=True); time.sleep(60)"
    )
    running.send_signal(signal.SIGINT)
    assert running.stdout.readline() == "stopping\n"
    running.send_signal(signal.SIGINT)  # a wrapper's copy of the first
    time.sleep(stopping.SAME_WISH + 0.1)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert told == "lobit: stopped at once; files are whole or absent\n"


def test_signals_that_are_ignored_stay_so():
    running = child("    time.sleep(0.5)", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    running.send_signal(signal.SIGHUP)
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (0, "")


def test_a_terminal_that_is_gone_does_not_matter():
    code = "    os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n    time.sleep(60)"
    running = child(code)
    time.sleep(0.3)
    running.send_signal(signal.SIGHUP)
    assert running.wait(timeout=60) == 129


def test_ctrl_c_while_the_command_line_itself_is_imported(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(stopping.__file__).parents[2]}"}
    done = subprocess.run([sys.executable, "-m", "lobit", "models"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "lobit: interrupted\n")
