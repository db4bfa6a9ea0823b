"""`lobit run`, `eval` and `bench` on a file: piped, in 80 columns, as JSON, and `run` and `eval` where torch does not exist."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lobit.data import load_data
from lobit.format import About, write_file
from lobit.runtime import load
from tests.report.nets import captured

DIGITS = load_data("digits")
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from lobit.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file that knows its use, one that does not, and inputs."""
    root = tmp_path_factory.mktemp("files")
    graph = captured("digits-convnet", "W2A2")
    about = About("digits", 0.0, 1.0, 16, DIGITS.classes, "logits")
    write_file(root / "net.lobit", replace(graph, meta={**graph.meta, **about.meta()}))
    write_file(root / "bare.lobit", graph)
    (root / "images").mkdir()
    for index in range(3):
        Image.fromarray(DIGITS.test_images[index, 0] * 15).resize((32, 32)).save(root / "images" / f"{index}.png")
    np.save(root / "pixels.npy", DIGITS.test_images[:50])
    np.save(root / "floats.npy", DIGITS.scale(DIGITS.test_images[:50], 0, 1))
    return root


def lobit(*arguments, cwd, stdin=b""):
    """The command, piped, where torch cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)], cwd=cwd, input=stdin, capture_output=True, check=False,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def in_terminal(*arguments, cwd):
    """What the command shows on a terminal of 80 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "lobit.cli", *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"})  # fmt: skip
    os.close(slave)
    parts = []
    try:
        while part := os.read(master, 65536):
            parts.append(part)
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    os.close(master)
    assert process.wait() == 0
    return b"".join(parts).decode().replace("\r", "").splitlines()


def test_run_gives_the_sessions_classes_and_softmax_of_its_scores(folder):
    status, out, _ = lobit("run", "net.lobit", "pixels.npy", "--json", "--scores", "--top", 3, "--batch", 7, cwd=folder)
    rows = [json.loads(line) for line in out.splitlines()]
    scores = load(folder / "net.lobit")(DIGITS.scale(DIGITS.test_images[:50], 0, 1))
    shares = np.exp(scores.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    assert status == 0
    assert [row["input"] for row in rows] == [f"pixels.npy[{i}]" for i in range(50)]
    assert [row["class"] for row in rows] == scores.argmax(1).tolist()
    np.testing.assert_array_equal(np.array([row["scores"] for row in rows], np.float32), scores)
    np.testing.assert_allclose([row["probability"] for row in rows], shares.max(1), rtol=1e-9)
    assert all(len(row["best"]) == 3 for row in rows)


def test_floats_pixels_and_standard_input_are_the_same(folder):
    columns = []
    for name, stdin in (("pixels.npy", b""), ("floats.npy", b""), ("-", (folder / "floats.npy").read_bytes())):
        status, out, _ = lobit("run", "net.lobit", name, cwd=folder, stdin=stdin)
        assert status == 0
        columns.append([line.split("\t")[1:] for line in out.splitlines()])
    assert len(columns[0]) == 50
    assert columns[0] == columns[1] == columns[2]


def test_bad_files_are_named_the_rest_goes_on_and_the_status_is_1(folder, tmp_path):
    for path in (folder / "images").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1.png").write_bytes(b"bad")
    status, out, err = lobit("run", folder / "net.lobit", ".", "--out", "scores.npy", cwd=tmp_path)
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == ["0.png", "2.png"]
    assert "1.png: it is no image" in err
    assert "32 x 32 grey: scaled to 8 x 8" in err
    assert np.load(tmp_path / "scores.npy").shape == (2, 10)


def test_scores_are_never_written_over_an_input(folder, tmp_path):
    array = tmp_path / "x.npy"
    np.save(array, np.zeros((2, 1, 8, 8), np.float32))
    before = array.read_bytes()
    for inputs in (array, tmp_path):
        status, _, told = lobit("run", "net.lobit", inputs, "--out", array, cwd=folder)
        assert status == 2
        assert "name another file for the scores" in told
        assert array.read_bytes() == before


def test_a_raw_score_is_shown_where_nothing_says_that_softmax_fits(folder):
    _, out, _ = lobit("run", "bare.lobit", "floats.npy", "--json", cwd=folder)
    assert "probability" not in json.loads(out.splitlines()[0])
    status, _, err = lobit("run", "bare.lobit", "images", cwd=folder)
    assert status == 1
    assert "--range 0 1" in err


def test_names_of_classes_can_be_given(folder, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    _, out, _ = lobit("run", "net.lobit", "floats.npy", "--classes", tmp_path / "names.txt", cwd=folder)
    assert out.splitlines()[0].split("\t")[1].startswith("digit ")
    (tmp_path / "names.txt").write_text("only one")
    status, _, err = lobit("run", "net.lobit", "floats.npy", "--classes", tmp_path / "names.txt", cwd=folder)
    assert status == 2
    assert "1 classes are named; the network has 10 scores" in err


def test_results_stream_before_the_input_ends(folder):
    process = subprocess.Popen([sys.executable, "-c", WITHOUT_TORCH, "run", "net.lobit", "-", "--batch", "1"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    data = io.BytesIO()
    np.save(data, DIGITS.test_images[:2])
    process.stdin.write(data.getvalue()[:-64])  # the second image is still to come
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"-[0]\t")
    process.stdin.write(data.getvalue()[-64:])
    process.stdin.close()
    assert process.stdout.readline().startswith(b"-[1]\t")
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "net.lobit", "nowhere.png"], "there is no file or folder"),
        (["run", "nowhere.lobit", "images"], "cannot read 'nowhere.lobit'"),
        (["run", "net.lobit", "images", "--out", "s.txt"], "a .npy file"),
        (["run", "net.lobit", "images", "--range", "1", "0"], "give low below high"),
        (["eval", "bare.lobit"], "name it with --data"),
        (["eval", "bare.lobit", "--data", "digits"], "--range 0 1"),
        (["eval", "net.lobit", "--data", "nothing"], "unknown data set"),
        (["bench", "net.lobit", "--peers", "nobody"], "unknown peer"),
        (["bench", "net.lobit", "--batches", "x"], "write integers"),
        (["bench", "net.lobit", "--picture", "b.pdf"], "ends in .svg or .png"),
    ],
)
def test_what_is_wrong_is_one_message_and_status_2(folder, arguments, message):
    status, out, err = lobit(*arguments, cwd=folder)
    assert status == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_eval_counts_what_the_session_does(folder):
    status, out, err = lobit("eval", "net.lobit", "--json", "--batch", 100, cwd=folder)
    assert status == 0, err
    found = json.loads(out)
    scores = load(folder / "net.lobit")(DIGITS.scale(DIGITS.test_images, 0, 1))
    assert found["nets"][0]["correct"] == (scores.argmax(1) == DIGITS.test_labels).sum()
    assert found["nets"][0]["net"] == "packed"
    same = json.loads(lobit("eval", "bare.lobit", "--data", "digits", "--range", 0, 1, "--json", cwd=folder)[1])
    assert same["nets"][0]["correct"] == found["nets"][0]["correct"]


def test_bench_of_a_file_prints_one_json_value(folder):
    status, out, err = lobit("bench", "net.lobit", "--seconds", 0.01, "--batches", "2", "--peers", "none", "--json", cwd=folder)
    assert status == 0, err
    assert json.loads(out)["batches"][0]["batch"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "net.lobit", "images", "pixels.npy", "--top", "5", "--scores"],
        ["eval", "net.lobit"],
        ["bench", "net.lobit", "--seconds", "0.01", "--peers", "none"],
    ],
)
def test_a_terminal_of_80_columns_is_wide_enough(folder, arguments):
    lines = in_terminal(*arguments, cwd=folder)
    assert lines
    assert max(map(len, lines)) <= 80
