"""What goes wrong in training ends in one clear error, and the last good state stays."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console

from lobit.data import load_data
from lobit.errors import ConfigError, LobitError
from lobit.recipes import load_recipe
from lobit.training import build_model, load_model, train
from lobit.training.module import TrainingModule, learning_rate
from lobit.training.progress import ShowProgress
from tests.training.test_training import tiny
from tests.warm import python, start


def recipe_file(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(**changes).model_dump()))
    return path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_says_so_and_goes_on_later(tmp_path, number, status):
    recipe_file(tmp_path, epochs=1000)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    running = start("train", "tiny.yaml", "--out", "run", cwd=tmp_path)
    give_up = time.monotonic() + 120
    while not last.exists() and running.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    running.send_signal(number)
    _, told = running.communicate(timeout=120)
    assert running.returncode == status, told
    assert "Traceback" not in told
    if number == signal.SIGINT:
        assert "interrupted; go on with: lobit train tiny.yaml --out run --resume" in told
    assert not (tmp_path / "run" / "result.json").exists()
    done = len(torch.load(last, weights_only=True)["lobit"]["history"])
    again = start("train", "tiny.yaml", "--out", "run", "--resume", "--epochs", done + 1, "--no-report", cwd=tmp_path)
    out, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("command", "left"), [(("train", "tiny.yaml", "--out", "small"), {"recipe.yaml"}), (("demo", "--out", "small"), set())]
)
def test_a_full_disk_is_one_error(tmp_path, command, left):
    """A limit on the size of files stands in for the disk: large enough for a recipe, too small for a checkpoint."""
    recipe_file(tmp_path)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    full = python(f"{limited}\nimport sys; sys.argv = ['lobit', *{command}]\nfrom lobit.cli import main; main()", cwd=tmp_path)
    assert full.returncode == 2, full.stderr
    assert "cannot write to" in full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("*.lobit*"))
    assert left <= {path.name for path in (tmp_path / "small").iterdir()}


@pytest.mark.parametrize("lost", ["recipe", "history", "random", "seconds", "lobit", "state_dict"])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, lost):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    for name in ("best", "last"):
        path = tmp_path / "a" / "checkpoints" / f"{name}.ckpt"
        stored = torch.load(path, weights_only=True)
        (stored if lost in stored else stored["lobit"]).pop(lost)
        torch.save(stored, path)
    with pytest.raises(ConfigError, match="no checkpoint of a lobit run"):
        load_model(tmp_path / "a")
    with pytest.raises(ConfigError, match="no checkpoint of a lobit run"):
        train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)


def test_a_checkpoint_with_another_versions_recipe_is_refused(tmp_path):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    path = tmp_path / "a" / "checkpoints" / "best.ckpt"
    stored = torch.load(path, weights_only=True)
    stored["lobit"]["recipe"]["warp"] = 9
    torch.save(stored, path)
    with pytest.raises(ConfigError, match=r"best\.ckpt.*unknown field 'warp'"):
        load_model(tmp_path / "a")


def test_a_longer_run_goes_on_with_its_own_rates_and_a_shorter_one_is_refused(tmp_path):
    train(tiny(epochs=3), out=tmp_path / "a", progress=False)
    with pytest.raises(ConfigError, match="3 epochs, more than 2"):
        train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)
    rates = []

    class Watch(TrainingModule):
        def training_step(self, batch, index):
            rates.extend((self.current_epoch, group["lr"] / group["initial_lr"]) for group in self.trainer.optimizers[0].param_groups)
            return super().training_step(batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lobit.training.run.TrainingModule", Watch)
        train(tiny(epochs=5), out=tmp_path / "a", resume=True, progress=False)
    assert {epoch for epoch, _ in rates} == {3, 4}
    for epoch, rate in rates:
        assert rate == pytest.approx(learning_rate(tiny().optimizer, epoch, 5) / tiny().optimizer.lr)
    history = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)["lobit"]["history"]
    assert history[3]["lr"] == pytest.approx(learning_rate(tiny().optimizer, 3, 5))


def test_a_lost_best_epoch_is_missed_before_any_training(tmp_path):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    (tmp_path / "a" / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"lost best\.ckpt.*--overwrite"):
        train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)
    with pytest.raises(ConfigError, match=r"no checkpoints/best\.ckpt.*last\.ckpt"):
        load_model(tmp_path / "a")
    load_model(tmp_path / "a" / "checkpoints" / "last.ckpt")


def test_a_resume_without_a_run_says_that_it_starts_anew(tmp_path, capfd):
    train(tiny(epochs=1), out=tmp_path / "a", resume=True)
    assert "holds no checkpoint to go on from: training starts at the first epoch" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "mnist-mlp-small", "bits": "W2A2"}, r"\(1, 28, 28\).*\(1, 8, 8\)"),
        ({"name": "digits-convnet", "args": {"width": -3}}, "-3"),
        ({"name": "digits-convnet", "args": {"width": 0}}, "would be empty"),
        ({"name": "digits-convnet", "args": {"width": "x"}}, "does not take.*'x'"),
        ({"name": "digits-convnet", "args": {"depth": 3}}, "depth"),
        ({"name": "digits-convnet", "bits": "W9A1"}, "1 to 8 bits, or 32 for float, not 9"),
        ({"name": "digits-resnet"}, "digits-convnet"),
    ],
)
def test_models_that_cannot_be_are_refused_before_anything_is_written(tmp_path, model, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny(model=model), out=tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_a_nan_that_signs_hide_from_the_loss_stops_the_run(tmp_path, monkeypatch):
    module = TrainingModule(build_model(tiny()), tiny())
    next(buffer for name, buffer in module.model.named_buffers() if name.endswith("running_var"))[0] = float("nan")
    with pytest.raises(
        LobitError, match=r"'running_var' of '1' \(BatchNorm2d\) is not finite: 1 of 4 values \(NaN\), seen after epoch 1, batch 7"
    ):
        module.check_parameters(6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 7\nepochs: 1\n", "stands twice"),
        ("epochs: true\n", "epochs.*True"),
        ("epochs: '3'\n", "epochs"),
        ("optimizer: {lr: .inf}\n", "lr.*inf"),
        ("data: {name: digits, high: 1.0e+300}\n", "high"),
        (
            f"model: &a0 [{'x' * 100}]\n" + "".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
            "unknown field",
        ),
    ],
)
def test_yaml_that_says_something_else_than_it_seems_is_refused_at_once(tmp_path, text, message):
    fields = {name: value for name, value in tiny().model_dump().items() if f"{name}:" not in text}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(fields) + text)
    start = time.monotonic()
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(path)
    assert len(str(error.value)) < 10_000
    assert time.monotonic() - start < 30  # the expansion would take hours and gigabytes


@pytest.mark.parametrize("call", [lambda run: load_model(run), lambda run: train(tiny(), out=run, resume=True, progress=False)])
def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch, call):
    """The administrator may read everything, so the refusal is made up."""
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ConfigError, match="cannot read.*Permission denied"):
        call(tmp_path / "a")


def test_empty_folder_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="folder of a run is empty"):
        train(tiny(), out="", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_bar_keeps_its_estimate_in_80_columns():
    screen = StringIO()
    bar = ShowProgress("a-rather-long-recipe-name-of-mine", Console(file=screen, force_terminal=True, width=80, color_system=None))
    trainer = SimpleNamespace(current_epoch=0, max_epochs=10, num_training_batches=10, global_step=40)
    bar.on_train_start(trainer, None)
    module = TrainingModule(build_model(tiny()), tiny())
    module.history = [{"epoch": 1, "lr": 0.1, "train_loss": 0.0138, "train_accuracy": 1.0, "val_accuracy": 0.945}]
    bar.on_train_epoch_end(trainer, module)
    bar.close()
    line = screen.getvalue().replace("\r", "\n").split("\n")[-2]
    assert "━" * 4 in line
    assert "40%" in line
    assert "-:--:--" in line  # the time that is left, once there is something to reckon it from
    assert "loss 0.014 train 100% val 94.5%" in line
    assert len(line) <= 90  # with the codes that move the cursor


def test_pixels_that_do_not_fit_the_model_are_named(tmp_path, monkeypatch):
    digits = load_data("digits")
    monkeypatch.setattr("lobit.training.run.load_data", lambda name, folder: replace(digits, classes=digits.classes[:9]))
    with pytest.raises(ConfigError, match="10 classes.* 9"):
        train(tiny(), out=tmp_path / "a", progress=False)
