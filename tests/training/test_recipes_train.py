"""Each optimizer and each aid of a recipe trains the shipped digits above chance, and a run that was cut off ends as a whole one, bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import lobit
from lobit.errors import ConfigError, LobitError
from lobit.models import register
from lobit.models.registry import _MODELS
from lobit.optim import Bop, CombinedOptimizer, ShiftAdaMax
from lobit.recipes import Recipe, check_recipe, load_recipe
from lobit.training import load_model, train
from lobit.training.module import TrainingModule
from lobit.training.optimizers import build_optimizer, learning_rate
from tests.training.test_training import tiny

OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.1, "lr_end": 0.01, "schedule": "cosine", "weight_decay": 1e-4, "nesterov": True},
    "shift-adamax": {"name": "shift-adamax", "lr": 2.0**-7, "schedule": "step", "halve_every": 2},
    "shift-adamax-paper": {"name": "shift-adamax", "lr": 2.0**-8, "form": "paper", "betas": [0.875, 0.999]},
    "bop": {"name": "bop", "lr": 0.01, "gamma": 0.01, "threshold": 1e-6, "schedule": "step", "halve_every": 1},
}
W1 = {"name": "digits-convnet", "bits": "W1A2", "args": {"width": 4}}
W2 = {"name": "digits-convnet", "bits": "W2A2", "args": {"width": 4}}
RUNS = {
    **{name: {"optimizer": settings, "model": W1} for name, settings in OPTIMIZERS.items()},
    "epochs": {"model": W2, "schedule": {"delay": 1, "until": {2: "W8A4"}}, "watch": {"flips": True, "starved": "warn"}},
    "steps": {"model": W2, "schedule": {"until": {7: "float", 25: "W4A4"}, "unit": "steps"}},
}


class _StopError(Exception):
    pass


def last(folder):
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("name", RUNS)
def test_a_run_learns_and_goes_on_bit_for_bit_after_it_was_cut(name, tmp_path, monkeypatch):
    recipe = tiny(**RUNS[name], epochs=4)
    whole = train(recipe, out=tmp_path / "whole", progress=False)
    assert whole.test_accuracy > 0.5, whole
    step = TrainingModule.training_step
    for cut in (1, 3):

        def stops(self, batch, index, cut=cut):
            if self.current_epoch == cut and index == 3:
                raise _StopError
            return step(self, batch, index)

        monkeypatch.setattr(TrainingModule, "training_step", stops)
        with pytest.raises(_StopError):
            train(recipe, out=tmp_path / "cut", resume=cut == 3, progress=False)
        load_model(tmp_path / "cut")  # whatever bits the best epoch so far has
    monkeypatch.undo()
    result = train(recipe, out=tmp_path / "cut", resume=True, progress=False)
    a, b = last(tmp_path / "whole"), last(tmp_path / "cut")
    assert same(a["state_dict"], b["state_dict"])
    assert same(a["optimizer_states"], b["optimizer_states"])
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "cut" / "metrics.csv").read_text()
    assert result.test_accuracy == whole.test_accuracy


def test_recipes_build_their_optimizers():
    def built(name, model="mnist-mlp-small", **changes):
        recipe = tiny(optimizer=OPTIMIZERS[name], model={"name": model, "bits": "W1A1"}, **changes)
        return build_optimizer(lobit.models.create(model, "W1A1"), recipe)

    sgd = built("sgd")
    assert type(sgd) is torch.optim.SGD
    assert sgd.defaults["nesterov"]
    assert [group["weight_decay"] for group in sgd.param_groups] == [0.0] * 4 + [1e-4]
    shift = built("shift-adamax-paper", step_scale="glorot")
    assert type(shift) is ShiftAdaMax
    assert (shift.defaults["form"], shift.defaults["betas"]) == ("paper", (0.875, 0.999))
    assert shift.param_groups[0]["step_factor"] == pytest.approx(shift.param_groups[0]["lr"] * 2**8)
    both = built("bop")
    assert type(both) is CombinedOptimizer
    assert type(both.optimizers[0]) is Bop
    assert len(both.param_groups[0]["params"]) == 4
    assert {group["initial_lr"] for group in both.param_groups} == {0.01}


def test_a_rate_is_halved_every_few_epochs():
    spec = tiny(optimizer=OPTIMIZERS["shift-adamax"]).optimizer
    assert [learning_rate(spec, epoch, 5) for epoch in range(5)] == [2.0**-7] * 2 + [2.0**-8] * 2 + [2.0**-9]


def test_the_papers_torch_recipe_is_its_table():
    recipe = load_recipe("mnist-mlp-torch-w1a1")
    assert (recipe.optimizer.name, recipe.optimizer.form, recipe.batch_size) == ("shift-adamax", "torch", 100)
    assert [learning_rate(recipe.optimizer, epoch, recipe.epochs) for epoch in (0, 19, 20, 40)] == [2.0**-6, 2.0**-6, 2.0**-7, 2.0**-8]


def test_the_best_epoch_has_the_models_own_bits(tmp_path, monkeypatch):
    """The float epoch is made the better one."""
    monkeypatch.setattr(TrainingModule, "_mean", lambda self, stage, name: 0.9 if self.current_epoch == 0 else 0.5)
    result = train(tiny(model=W2, schedule={"delay": 1}, epochs=3), out=tmp_path / "a", progress=False)
    assert result.epoch == 2
    model, _ = load_model(tmp_path / "a")
    assert not any(module.off for module in model.modules() if isinstance(module, lobit.quantizers.Quantizer))
    rows = list(csv.DictReader((tmp_path / "a" / "metrics.csv").open()))
    assert [(row["own_bits"], row["val_accuracy"]) for row in rows] == [("0.0", "0.9"), ("1.0", "0.5"), ("1.0", "0.5")]


def test_flips_are_in_the_table_and_in_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(model=W1, watch={"flips": True}), out=tmp_path / "a", progress=False)
    rows = list(csv.DictReader((tmp_path / "a" / "metrics.csv").open()))
    assert len(rows) == 3
    assert {name for name in rows[0] if name.startswith("flips")} == {"flips", "flips/0", "flips/3", "flips/8", "flips/11"}
    assert all(0 < float(row["flips"]) < 1 for row in rows)
    tags = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload().Tags()["scalars"]
    assert {"flips", "flips/3"} <= set(tags)


@pytest.fixture
def dead_net():
    @register("dead-net", input_shape=(1, 8, 8), num_classes=10, description="for tests")
    def dead(bits):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        nn.init.constant_(model[1].bias, -100.0)
        return model

    yield {"name": "dead-net"}
    del _MODELS["dead-net"]


def test_a_starved_layer_is_told_and_can_stop_the_run(tmp_path, dead_net, capfd, caplog):
    recipe = tiny(model=dead_net, watch={"starved": "warn", "patience": 5}, epochs=1)
    train(recipe, out=tmp_path / "a", progress=False)
    assert "'1' (Linear) is starved: no gradient has reached its weights for 5 steps; behind it, '2' (ReLU)" in caplog.text
    train(recipe, out=tmp_path / "b")
    assert "'1' (Linear) is starved" in capfd.readouterr().err
    with pytest.raises(LobitError, match=r"'1' \(Linear\) is starved.*seen at epoch 1"):
        train(tiny(model=dead_net, watch={"starved": "error", "patience": 5}), out=tmp_path / "c", progress=False)


def test_a_student_learns_from_the_run_of_its_teacher(tmp_path):
    train(
        tiny(model={"name": "digits-convnet", "args": {"width": 8}}, data={"name": "digits", "low": -1, "high": 1}),
        out=tmp_path / "teacher",
        progress=False,
    )
    distill = {"teacher": str(tmp_path / "teacher"), "temperature": 2.0, "weight": 0.9, "hints": {"11": "11"}}
    constant = {"lr": 0.01}  # a run of fewer epochs then has the same rates
    recipe = tiny(model=W2, distill=distill, optimizer=constant)
    result = train(recipe, out=tmp_path / "a", progress=False)
    assert result.test_accuracy > 0.7
    assert not any("teacher" in name or name.startswith("distill") for name in last(tmp_path / "a")["state_dict"])
    train(tiny(model=W2, distill=distill, optimizer=constant, epochs=2), out=tmp_path / "b", progress=False)
    train(recipe, out=tmp_path / "b", resume=True, progress=False)
    assert same(last(tmp_path / "a")["state_dict"], last(tmp_path / "b")["state_dict"])


def test_a_teacher_sees_images_in_its_own_range(tmp_path):
    from lobit.data import load_data
    from lobit.training.teacher import teach

    teacher = tiny(data={"name": "digits", "low": -1, "high": 1}, model={"name": "digits-convnet", "args": {"width": 4}}, epochs=1)
    train(teacher, out=tmp_path / "t", progress=False)
    data = load_data("digits")
    loss = teach(tiny(distill={"teacher": str(tmp_path / "t")}), nn.Identity(), data)
    net, _ = load_model(tmp_path / "t")
    mine, its = (torch.from_numpy(data.scale(data.test_images[:9], *ends)) for ends in ((0, 1), (-1, 1)))
    torch.testing.assert_close(loss.teacher(mine), net(its), rtol=1e-5, atol=1e-5)


def test_what_cannot_work_is_refused_before_a_folder_is_made(tmp_path):
    for changes, told in (
        ({"distill": {"teacher": str(tmp_path / "none")}}, "no checkpoint"),
        (
            {"model": {"name": "digits-convnet", "bits": "W2A2", "args": {"width": 4}}, "optimizer": OPTIMIZERS["bop"]},
            "no one-bit weights for Bop",
        ),
        ({"model": {"name": "digits-convnet", "args": {"width": 4}}, "schedule": {"delay": 1}}, "the model has none"),
        ({"model": W1, "schedule": {"until": {2: "W8A8"}}}, "'magnitude_sign' has one width"),
        ({"schedule": {"delay": 50, "unit": "steps"}}, "the last epoch begins at step 38"),
    ):
        with pytest.raises(ConfigError, match=told):
            train(tiny(**changes), out=tmp_path / "a", progress=False)
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": {"name": "adamw", "lr": 0.1}}, r"optimizer: name must be 'adam', 'sgd', 'shift-adamax' or 'bop'"),
        ({"optimizer": {"lr": 0.1, "momentum": 0.9}}, r"'optimizer.momentum' belongs to the optimizer sgd, not to adam"),
        (
            {"optimizer": {"name": "sgd", "lr": 0.1, "momentun": 0.9}},
            r"unknown field 'optimizer.momentun', did you mean 'optimizer.momentum'",
        ),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 1.0}}, r"optimizer.momentum: .*less than 1"),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0, "nesterov": True}}, "nesterov needs a momentum"),
        ({"optimizer": {"name": "bop", "lr": 0.1, "gamma": 2}}, "optimizer.gamma"),
        ({"optimizer": {"lr": 0.1, "schedule": "step"}}, "halve_every belongs to the schedule step, which needs it"),
        ({"optimizer": {"lr": 0.1, "halve_every": 3}}, "halve_every belongs"),
        ({"schedule": {}}, "needs a delay, or widths"),
        ({"schedule": {"delay": 3}}, "ends at epoch 3, and the run has 3"),
        ({"schedule": {"delay": 2, "until": {2: "W8A8"}}}, "must end before"),
        ({"schedule": {"until": {1: "W9"}}}, "weights have 1 to 8 bits"),
        ({"schedule": {"until": {0: "W8"}}}, "schedule.until"),
        ({"schedule": {"delay": 1}, "optimizer": {"name": "bop", "lr": 0.1}}, "bop trains one-bit weights"),
        ({"distill": {"teacher": "a", "temprature": 2}}, "did you mean 'distill.temperature'"),
        ({"watch": {"flip": True}}, "did you mean 'watch.flips'"),
    ],
)
def test_a_wrong_recipe_names_the_field(changes, told):
    with pytest.raises(ConfigError, match=told):
        check_recipe("'r'", tiny().model_dump() | changes)


def test_every_recipe_survives_its_file():
    for name, changes in RUNS.items():
        recipe = tiny(**changes, epochs=4)
        assert Recipe.model_validate(yaml.safe_load(yaml.safe_dump(recipe.model_dump()))) == recipe, name
        assert type(recipe.optimizer).__name__ == {"sgd": "SGDSpec", "bop": "BopSpec"}.get(name, type(recipe.optimizer).__name__)


def test_a_run_of_an_older_version_is_read_and_gone_on_with(tmp_path):
    """Such a recipe has four settings of its optimizer and none of what came later."""
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    for name in ("best", "last"):
        path = tmp_path / "a" / "checkpoints" / f"{name}.ckpt"
        stored = torch.load(path, weights_only=True)
        recipe = stored["lobit"]["recipe"]
        for field in ("schedule", "distill", "watch"):
            del recipe[field]
        recipe["optimizer"] = {field: recipe["optimizer"][field] for field in ("lr", "lr_end", "schedule", "weight_decay")}
        torch.save(stored, path)
    (tmp_path / "a" / "result.json").unlink()
    load_model(tmp_path / "a")
    result = train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["epoch"] == result.epoch
    assert len(last(tmp_path / "a")["lobit"]["history"]) == 2
