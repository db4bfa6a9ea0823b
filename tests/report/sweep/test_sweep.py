"""Sweeps: every net is an ordinary run, whatever happens nothing finished is lost, and a folder holds one sweep."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from lobit.errors import ConfigError, Interrupted, LobitError
from lobit.format import read_file
from lobit.report.cost import cost_of
from lobit.report.sweep import Grid, read_result, sweep
from lobit.training import load_model, train
from tests.report.test_workers import gone, wait_for
from tests.training.test_training import tiny
from tests.warm import start

GRID = Grid((1, 32), (2, 32))


@pytest.fixture(autouse=True)
def _short_timings(monkeypatch):
    monkeypatch.setattr("lobit.report.sweep.measure.SECONDS_A_TIMING", 0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lobit.report.sweep.measure.SECONDS_A_TIMING", 0.01)
        return sweep(tiny(epochs=2), GRID, out=out, jobs=2, progress=False)


def figures(result):
    """All but what time has a part in."""
    return [replace(row, seconds=0, latency_ms={}) for row in result.rows]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_sweep_leaves_runs_packed_files_a_result_pictures_and_a_page(whole):
    out = Path(whole.folder)
    assert [row.bits for row in whole.rows] == ["W1A2", "W1A32", "W32A2", "W32A32"]
    assert [row.exact for row in whole.rows] == [True, False, False, False]
    assert read_result(out / "sweep.json") == whole
    for name in ("sweep.csv", "sweep.html", "heatmap.svg", "pareto.svg", "energy.svg"):
        assert (out / name).stat().st_size
    for row in whole.rows:
        run = out / f"{row.bits.lower()}-seed1"
        cost = cost_of(read_file(run / "model.lobit"))
        assert (row.file_bytes, row.weight_bytes) == ((run / "model.lobit").stat().st_size, cost.weight_bytes)
        assert (dict(row.macs_by_width), row.bit_operations) == (cost.macs_by_width, cost.bit_operations)
        assert load_model(run)[1].model.bits == row.bits
        assert all(milliseconds > 0 for milliseconds in row.latency_ms.values())
    assert not whole.failures


def test_a_net_of_a_sweep_is_what_training_it_alone_gives(whole, tmp_path):
    recipe = tiny(epochs=2, model={"name": "digits-convnet", "bits": "W1A2", "args": {"width": 4}})
    alone = train(recipe, out=tmp_path / "alone", progress=False)
    assert whole.rows[0].accuracy == pytest.approx(alone.test_accuracy, abs=1e-6)
    assert whole.rows[0].validation_accuracy == pytest.approx(alone.validation_accuracy)
    assert (tmp_path / "alone" / "metrics.csv").read_bytes() == (Path(whole.folder) / "w1a2-seed1" / "metrics.csv").read_bytes()


def test_a_finished_sweep_is_drawn_again_without_training_and_grows_by_seeds(whole, tmp_path, monkeypatch):
    out = Path(whole.folder)
    before = contents(out)
    monkeypatch.setattr("lobit.report.workers._Process.__init__", lambda *_: pytest.fail("a process was started"))
    assert sweep(tiny(epochs=2), GRID, out=out, resume=True, progress=False) == whole
    assert contents(out) == before
    monkeypatch.undo()
    grown = sweep(tiny(epochs=2), Grid((1,), (2,), (1, 2)), out=out, resume=True, progress=False)
    assert grown.rows[0].seeds == (1, 2)
    low, high = grown.rows[0].accuracy_low, grown.rows[0].accuracy_high
    assert whole.rows[0].accuracy in (low, high)
    assert grown.rows[0].accuracy == pytest.approx((low + high) / 2)
    for path in before:
        if path.parent.name.endswith("seed1"):
            assert (out / path).read_bytes() == before[path]


def processes_of(parent):
    """Ids of the processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def stop_in_the_second_net(tmp_path, signal_number):
    """Start a sweep, wait until one net is finished and the next one is being trained, and send a signal; return the process and what it had started."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=2).model_dump()))
    running = start("sweep", "tiny.yaml", "--weights", "1,32", "--activations", "2,32", "--jobs", "1", "--out", "cut", cwd=tmp_path)
    cut = tmp_path / "cut"
    wait_for(lambda: (cut / "w1a2-seed1" / "cell.json").exists() and (cut / "w1a32-seed1" / "recipe.yaml").exists(), 120)
    children = processes_of(running.pid)
    running.send_signal(signal_number)
    return running, children


def test_a_sweep_that_is_killed_in_a_net_goes_on_to_the_same_figures(whole, tmp_path):
    running, children = stop_in_the_second_net(tmp_path, signal.SIGKILL)
    running.communicate()
    assert children
    wait_for(lambda: all(map(gone, children)))
    cut = tmp_path / "cut"
    assert not (cut / "sweep.json").exists()
    assert not (cut / "w32a32-seed1" / "cell.json").exists()
    finished = contents(cut / "w1a2-seed1")
    with pytest.raises(ConfigError, match="holds a sweep; --resume goes on"):
        sweep(str(tmp_path / "tiny.yaml"), GRID, out=cut, progress=False)
    result = sweep(str(tmp_path / "tiny.yaml"), GRID, out=cut, resume=True, progress=False)
    assert contents(cut / "w1a2-seed1") == finished
    assert figures(result) == figures(whole)


def test_ctrl_c_ends_all_processes_and_says_how_to_go_on(tmp_path):
    running, children = stop_in_the_second_net(tmp_path, signal.SIGINT)
    out, err = running.communicate()
    assert running.returncode == 130, err
    assert children
    assert all(map(gone, children))
    assert out == ""
    assert "go on with: lobit sweep tiny.yaml" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("--resume")
    assert "Traceback" not in err
    assert not list((tmp_path / "cut").rglob("*.tmp"))


def test_ctrl_c_in_python_is_an_interruption_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("lobit.report.sweep.run.run_tasks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Interrupted, match="resume=True"):
        sweep(tiny(), GRID, out=tmp_path / "a", progress=False)


def test_a_net_that_fails_is_reported_and_does_not_stop_the_others(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs=1).model_dump()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "w2a1-seed1").write_text("in the way")
    arguments = ("tiny.yaml", "--weights", "1,2", "--activations", "1", "--out", "out", "--jobs", "1")
    failing = start("sweep", *arguments, cwd=tmp_path)
    out, err = failing.communicate()
    assert failing.returncode == 1, err
    assert "W2 failed" in " ".join(out.split())
    assert "lobit: w2a1-seed1 failed: cannot write to 'out/w2a1-seed1'" in err.splitlines()[-1]
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["weights"] for row in stored["rows"]] == [1]
    assert list(stored["failures"]) == ["w2a1-seed1"]
    (tmp_path / "out" / "w2a1-seed1").unlink()
    going_on = start("sweep", *arguments, "--resume", "--json", cwd=tmp_path)
    out, err = going_on.communicate()
    assert going_on.returncode == 0, err
    result = json.loads(out)
    assert [row["weights"] for row in result["rows"]] == [1, 2]
    assert result["failures"] == {}
    assert "1 of 2 nets are there already" in err
    assert "w2a1-seed1: accuracy" in err


def test_when_every_net_fails_that_is_an_error_with_each_reason_once(tmp_path):
    for name in ("w1a1-seed1", "w2a1-seed1"):
        (tmp_path / name).write_text("in the way")
    with pytest.raises(LobitError, match="all 2 nets of the sweep failed: cannot write to") as error:
        sweep(tiny(epochs=1), Grid((1, 2), (1,)), out=tmp_path, progress=False)
    assert str(error.value).count("cannot write") == 1  # one reason, said once


def test_a_folder_of_another_sweep_is_refused_by_name_and_left_as_it_was(whole):
    out = Path(whole.folder)
    before = contents(out)
    with pytest.raises(ConfigError, match=r"other settings \(epochs was 2, now is 3\)"):
        sweep(tiny(epochs=3), GRID, out=out, resume=True, progress=False)
    with pytest.raises(ConfigError, match="threads was 1, now is 2"):
        sweep(tiny(epochs=2, threads=2), GRID, out=out, resume=True, progress=False)
    with pytest.raises(ConfigError, match="exclude each other"):
        sweep(tiny(epochs=2), GRID, out=out, resume=True, overwrite=True, progress=False)
    assert contents(out) == before


def test_overwrite_takes_the_old_sweep_away_and_nothing_else(tmp_path):
    out = tmp_path / "a"
    sweep(tiny(epochs=1), Grid((1, 2), (1,)), out=out, progress=False)
    (out / "notes.txt").write_text("mine")
    result = sweep(tiny(epochs=1, seed=3), out=out, grid=Grid((1,), (1,), (3,)), overwrite=True, progress=False)
    assert [row.seeds for row in result.rows] == [(3,)]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["w1a1-seed3"]
    assert (out / "notes.txt").read_text() == "mine"


def test_two_sweeps_do_not_write_to_one_folder(tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    with (out / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another sweep is writing to"):
            sweep(tiny(), GRID, out=out, progress=False)
    assert [path.name for path in out.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jobs": 0}, "jobs is 0"),
        ({"jobs": True}, "jobs is True"),
        ({"out": ""}, "folder of a sweep is empty"),
        ({"batch_size": 5000}, "less than one batch"),
    ],
)
def test_wrong_settings_are_one_error_ahead_of_any_work(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        sweep(tiny(), GRID, **{"progress": False, **settings})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "{}", '{"weights": 1}'])
def test_a_damaged_record_is_named(whole, tmp_path, text):
    shutil.copytree(whole.folder, tmp_path / "a")
    (tmp_path / "a" / "w1a2-seed1" / "cell.json").write_text(text)
    with pytest.raises(ConfigError, match=r"cell\.json.*delete it"):
        sweep(tiny(epochs=2), GRID, out=tmp_path / "a", resume=True, progress=False)


def test_what_is_lost_of_a_net_is_made_again_from_its_run(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "a")
    lost = tmp_path / "a" / "w1a2-seed1"
    checkpoint = (lost / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    packed = (lost / "model.lobit").read_bytes()
    (lost / "model.lobit").unlink()
    (tmp_path / "a" / "latency.json").write_text("damaged")
    result = sweep(tiny(epochs=2), GRID, out=tmp_path / "a", resume=True, progress=False)
    assert [asdict(row) for row in figures(result)] == [asdict(row) for row in figures(whole)]
    assert (lost / "model.lobit").read_bytes() == packed
    assert (lost / "checkpoints" / "last.ckpt").stat().st_mtime_ns == checkpoint  # it was not trained again
