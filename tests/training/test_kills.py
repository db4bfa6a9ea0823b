"""Whatever is killed, whenever, every file is whole or absent, and ``--resume`` ends as a run that nobody killed, bit for bit."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lobit.format import read_file
from lobit.recipes import Recipe
from lobit.training.checkpoints import read_checkpoint
from tests.training.killing import STAGES, WRITES, Warm

KILLED = -signal.SIGKILL
STEP = "lobit.training.module:TrainingModule.training_step"
VALIDATION = "lobit.training.module:TrainingModule.validation_step"
CAPTURE = "lobit.capture.export:capture"
BATCHES = {100: 6, 0: 9}
"""Training batches of an epoch, by samples for validation."""


def recipe(**changes):
    fields = {
        "model": {"name": "random-net"},
        "data": {"name": "digits", "validation": 100},
        "optimizer": {"lr": 0.03, "lr_end": 0.001, "schedule": "cosine"},
        "epochs": 3,
        "batch_size": 32,
        "threads": 1,
    }
    return Recipe.model_validate(fields | changes)


class Ground:
    """A folder with recipes and a warm process; and what a run that nobody killed leaves, by samples for validation."""

    def __init__(self, folder):
        self.folder = folder
        self.warm = Warm(folder)
        self.wholes = {}
        self.writes = {}
        for validation in BATCHES:
            changed = recipe(data={"name": "digits", "validation": validation}).model_dump()
            (folder / f"r{validation}.yaml").write_text(yaml.safe_dump(changed))
            self.train(validation, f"whole{validation}")
            self.wholes[validation] = everything(folder / f"whole{validation}")
            self.writes[validation] = (folder / WRITES).read_text().split()

    def train(self, validation, out, *options, kill=None):
        """Without its page, which takes longer than the training; a test of its own kills that."""
        status, told = self.warm.run("train", f"r{validation}.yaml", "--out", out, "--no-report", *options, kill=kill)
        assert status == (KILLED if kill else 0), told
        return told

    def nth(self, validation, name, number):
        """Which write of a run is the n-th of a file; a negative n counts from the end."""
        places = [place for place, written in enumerate(self.writes[validation], 1) if written == name]
        return places[number]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    made = Ground(tmp_path_factory.mktemp("kills"))
    yield made
    made.warm.close()


def plain(value):
    """Checkpoints compare by their numbers, bit for bit."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def checkpoint(path):
    stored = torch.load(path, weights_only=True)
    stored["lobit"].pop("seconds")
    scores = [float(state["best_model_score"]) for state in stored["callbacks"].values() if state.get("best_model_score") is not None]
    parts = {name: plain(stored[name]) for name in ("state_dict", "optimizer_states", "lobit", "epoch", "global_step")}
    return {**parts, "scores": scores}


def curves(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def everything(folder):
    """All that a run's folder holds and that does not depend on where and how fast it ran."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    result = json.loads((folder / "result.json").read_text())
    return {
        "files": {name.split("/")[0] if name.startswith("tensorboard") else name for name in files},
        "last": checkpoint(folder / "checkpoints" / "last.ckpt"),
        "best": checkpoint(folder / "checkpoints" / "best.ckpt") if (folder / "checkpoints" / "best.ckpt").exists() else None,
        "metrics": (folder / "metrics.csv").read_text(),
        "recipe": (folder / "recipe.yaml").read_text(),
        "result": {name: result[name] for name in ("epoch", "validation_accuracy", "test_accuracy", "name")},
        "net": (folder / "model.lobit").read_bytes(),
        "curves": curves(folder / "tensorboard"),
    }


READERS = {
    ".ckpt": read_checkpoint,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: Recipe.model_validate(yaml.safe_load(path.read_text())),
    ".csv": lambda path: [{name: float(value) for name, value in row.items()} for row in csv.DictReader(path.open())],
    ".lobit": read_file,
}


def check_whole(folder, temporaries):
    """Every file can be read, but for one that was being written, under a name that nothing reads."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    stray = [path for path in files if path.name.startswith(".lobit-")]
    assert len(stray) == temporaries
    for path in files:
        if path not in stray:
            READERS[path.suffix](path)


def check_killed_and_resumed(ground, validation, out, kill):
    temporaries = kill[0] in STAGES and kill[0] != "renamed"
    ground.train(validation, out, kill=kill)
    check_whole(ground.folder / out, temporaries)
    ground.train(validation, out, "--resume")
    assert everything(ground.folder / out) == ground.wholes[validation]
    shutil.rmtree(ground.folder / out)


def test_the_net_of_these_tests_does_draw_and_learn(ground):
    """Otherwise equal results would say little."""
    states = ground.wholes[100]["last"]["lobit"]["random"]
    first = torch.load(ground.folder / "whole100" / "checkpoints" / "best.ckpt", weights_only=True)["lobit"]["random"]
    assert len(ground.wholes[100]["best"]["lobit"]["history"]) < 3 or plain(first) == states
    assert states["torch"] != plain(torch.Generator().manual_seed(1).get_state())
    assert ground.wholes[100]["best"] is not None
    assert ground.wholes[0]["best"] is None
    assert set(ground.writes[0]) == {"recipe.yaml", "metrics.csv", "last.ckpt", "result.json", "model.lobit"}
    assert {len(points) for points in ground.wholes[100]["curves"].values()} == {3}
    assert len({step for points in ground.wholes[100]["curves"].values() for step, _ in points}) == 3
    assert all(math.isfinite(value) for points in ground.wholes[100]["curves"].values() for _, value in points)


def test_the_same_run_twice_is_the_same(ground):
    ground.train(100, "again")
    assert everything(ground.folder / "again") == ground.wholes[100]


@pytest.mark.parametrize(("validation", "epoch"), [(100, 0), (100, 1), (100, 2), (0, 1)], ids=str)
def test_killed_in_the_middle_of_an_epoch(ground, validation, epoch):
    check_killed_and_resumed(ground, validation, "run", (STEP, epoch * BATCHES[validation] + 3))


def test_killed_in_validation(ground):
    check_killed_and_resumed(ground, 100, "run", (VALIDATION, 2))


@pytest.mark.parametrize(
    ("name", "number", "stage"),
    [
        ("recipe.yaml", 0, "half"),
        ("best.ckpt", 0, "half"),
        ("best.ckpt", 0, "renamed"),  # between best.ckpt and last.ckpt, with no last.ckpt yet
        ("best.ckpt", -1, "renamed"),
        ("last.ckpt", 1, "created"),
        ("last.ckpt", 1, "half"),
        ("last.ckpt", 1, "whole"),
        ("last.ckpt", -1, "renamed"),  # after the last checkpoint, with no result
        ("metrics.csv", 1, "renamed"),
        ("result.json", 0, "half"),
        ("model.lobit", 0, "created"),
        ("model.lobit", 0, "whole"),
    ],
)
def test_killed_in_a_write(ground, name, number, stage):
    check_killed_and_resumed(ground, 100, "run", (stage, ground.nth(100, name, number)))


@pytest.mark.slow
@pytest.mark.parametrize("validation", BATCHES)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_write_of_a_run(ground, validation, stage):
    for number in range(1, len(ground.writes[validation]) + 1):
        check_killed_and_resumed(ground, validation, "run", (stage, number))


def test_killed_again_and_again(ground):
    """Each time in another epoch, then in the resumed run's own writes."""
    ground.train(100, "run", kill=(STEP, 2))
    ground.train(100, "run", "--resume", kill=(STEP, BATCHES[100] + 2))
    ground.train(100, "run", "--resume", kill=("half", 3))
    ground.train(100, "run", "--resume", kill=(STEP, BATCHES[100] + 1))
    ground.train(100, "run", "--resume", kill=(CAPTURE, 1))
    ground.train(100, "run", "--resume")
    assert everything(ground.folder / "run") == ground.wholes[100]
    ground.train(100, "run", "--resume")  # a finished run stays as it is
    assert everything(ground.folder / "run") == ground.wholes[100]
    shutil.rmtree(ground.folder / "run")


@pytest.mark.parametrize("stage", [*STAGES, CAPTURE])
def test_an_export_that_is_killed_leaves_the_older_file_whole(ground, stage):
    shutil.copytree(ground.folder / "whole100", ground.folder / "run")
    older = (ground.folder / "whole0" / "model.lobit").read_bytes()
    file = ground.folder / "run" / "model.lobit"
    file.write_bytes(older)
    status, told = ground.warm.run("export", "run", "run/model.lobit", kill=(stage, 1))
    assert status == KILLED, told
    whole = ground.wholes[100]["net"]
    assert file.read_bytes() == (whole if stage == "renamed" else older)
    check_whole(ground.folder / "run", temporaries=stage in STAGES and stage != "renamed")
    status, told = ground.warm.run("export", "run", "run/model.lobit")
    assert status == 0, told
    assert file.read_bytes() == whole
    assert not list((ground.folder / "run").glob(".lobit-*"))
    shutil.rmtree(ground.folder / "run")


def test_a_longer_run_that_is_killed_keeps_the_net_of_the_shorter_one_and_tells_that_it_is_not_finished(ground):
    shutil.copytree(ground.folder / "whole100", ground.folder / "run")
    ground.train(100, "run", "--resume", "--epochs", "4", kill=(STEP, 3))
    check_whole(ground.folder / "run", temporaries=0)
    assert (ground.folder / "run" / "model.lobit").read_bytes() == ground.wholes[100]["net"]
    assert not (ground.folder / "run" / "result.json").exists()
    ground.train(100, "run", "--resume", "--epochs", "4", kill=("half", 3))
    ground.train(100, "run", "--resume", "--epochs", "4")
    killed = everything(ground.folder / "run")
    shutil.rmtree(ground.folder / "run")
    shutil.copytree(ground.folder / "whole100", ground.folder / "run")
    ground.train(100, "run", "--resume", "--epochs", "4")
    assert everything(ground.folder / "run") == killed
    shutil.rmtree(ground.folder / "run")


@pytest.mark.parametrize("number", range(1, 7))
def test_a_kill_while_an_old_run_is_removed_leaves_one_that_can_be_told_from_a_finished_one(ground, number):
    shutil.copytree(ground.folder / "whole100", ground.folder / "run")
    ground.train(100, "run", "--overwrite", kill=("pathlib:Path.unlink", number))
    check_whole(ground.folder / "run", temporaries=0)
    assert (ground.folder / "run" / "result.json").exists() == (number == 1)
    ground.train(100, "run", "--overwrite")
    assert everything(ground.folder / "run") == ground.wholes[100]
    shutil.rmtree(ground.folder / "run")


def test_a_page_that_is_killed_while_it_is_written_leaves_the_run_whole(ground):
    ground.train(0, "run")
    before = everything(ground.folder / "run")
    status, told = ground.warm.run("report", "run", kill=("half", 1))
    assert status == KILLED, told
    check_whole(ground.folder / "run", 1)
    status, told = ground.warm.run("report", "run")
    assert status == 0, told
    assert (ground.folder / "run" / "report.html").read_text().rstrip().endswith("</html>")
    after = everything(ground.folder / "run")
    assert after.pop("files") == before.pop("files") | {"report.html"}
    assert after == before
    shutil.rmtree(ground.folder / "run")


def test_a_best_epoch_ahead_of_the_last_one_is_not_taken_for_a_shorter_run(ground):
    """Killed between the two files; a resume that asks for the epochs of last.ckpt alone would test the wrong net."""
    numbers = [number for number, name in enumerate(ground.writes[100], 1) if name == "best.ckpt"]
    ground.train(100, "run", kill=("renamed", numbers[-1]))
    ahead = len(torch.load(ground.folder / "run" / "checkpoints" / "best.ckpt", weights_only=True)["lobit"]["history"])
    status, told = ground.warm.run("train", "r100.yaml", "--out", "run", "--resume", "--epochs", ahead - 1)
    assert status == 2
    assert f"{ahead} epochs, more than {ahead - 1}" in told
    shutil.rmtree(ground.folder / "run")
