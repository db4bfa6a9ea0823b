"""Runs: recipes are checked, results repeat, a run goes on where it stopped, and nothing is overwritten unasked."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import lobit
from lobit.data import load_data
from lobit.errors import ConfigError, LobitError
from lobit.recipes import OptimizerSpec, Recipe, list_recipes, load_recipe
from lobit.training import load_model, predict, train
from lobit.training.batches import Batches
from lobit.training.module import TrainingModule, learning_rate


def tiny(**changes):
    fields = {
        "model": {"name": "digits-convnet", "bits": "W2A2", "args": {"width": 4}},
        "data": {"name": "digits", "validation": 200},
        "optimizer": {"lr": 0.01, "lr_end": 0.001, "schedule": "exponential"},
        "epochs": 3,
        "batch_size": 64,
        "threads": 1,
    }
    return Recipe.model_validate(fields | changes)


def state(folder):
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_recipe_metrics_checkpoints_and_result(tmp_path):
    result = train(tiny(), out=tmp_path / "a", progress=False)
    rows = list(csv.DictReader((tmp_path / "a" / "metrics.csv").open()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert result.validation_accuracy == pytest.approx(float(best["val_accuracy"]))
    assert result.epoch == float(best["epoch"])
    assert result.test_accuracy > 0.5
    assert json.loads((tmp_path / "a" / "result.json").read_text())["test_accuracy"] == result.test_accuracy
    assert load_recipe(str(tmp_path / "a" / "recipe.yaml")) == tiny()
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    model, recipe = load_model(tmp_path / "a")
    data = load_data("digits")
    logits = predict(model, torch.from_numpy(data.scale(data.test_images, 0, 1)))
    assert float((logits.argmax(1).numpy() == data.test_labels).mean()) == pytest.approx(result.test_accuracy)
    assert recipe == tiny()


class _StopError(Exception):
    pass


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    train(tiny(), out=tmp_path / "whole", progress=False)
    step = TrainingModule.training_step

    def stops(self, batch, index):
        if self.current_epoch == 2 and index == 5:
            raise _StopError
        return step(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", stops)
    with pytest.raises(_StopError):
        train(tiny(), out=tmp_path / "cut", progress=False)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="--resume"):
        train(tiny(), out=tmp_path / "cut", progress=False)
    train(tiny(), out=tmp_path / "cut", resume=True, progress=False)
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "cut" / "metrics.csv").read_text()


def test_a_finished_run_is_not_overwritten_unasked(tmp_path):
    first = train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    with pytest.raises(ConfigError, match="finished run.*--overwrite"):
        train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    again = train(tiny(epochs=1), out=tmp_path / "a", overwrite=True, progress=False)
    assert again.test_accuracy == first.test_accuracy  # the same seed, the same numbers
    other = train(tiny(epochs=1, seed=2), out=tmp_path / "b", progress=False)
    assert not all(torch.equal(a, b) for a, b in zip(state(tmp_path / "a").values(), state(other.folder).values(), strict=True))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lobit.training.module.nn.CrossEntropyLoss.forward", lambda self, y, t: y.sum() * float("nan"))
    with pytest.raises(LobitError, match=r"epoch 1, batch 1.*learning rate"):
        train(tiny(), out=tmp_path / "a", progress=False)


def test_a_checkpoint_holds_latent_weights_within_their_range(tmp_path, monkeypatch):
    digits = load_data("digits")
    large = replace(
        digits,
        **{name: getattr(digits, name).repeat(4, 2).repeat(4, 3)[:, :, 2:30, 2:30] for name in ("train_images", "test_images")},
    )
    monkeypatch.setattr("lobit.training.run.load_data", lambda name, folder: large)
    recipe = tiny(model={"name": "mnist-mlp-small", "bits": "W1A1"}, loss="squared-hinge", step_scale="glorot", epochs=1)
    train(recipe, out=tmp_path / "a", progress=False)
    model, _ = load_model(tmp_path / "a" / "checkpoints" / "last.ckpt")
    latent = [layer.weight for layer, _ in lobit.optim.latent_layers(model)]
    assert len(latent) == 4
    for weight in latent:
        assert weight.abs().max() <= 1
        assert (weight.abs() == 1).any()  # the large steps of the paper's scale do reach the ends


def test_a_run_of_another_recipe_is_not_gone_on_with(tmp_path):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    before = (tmp_path / "a" / "recipe.yaml").read_text()
    with pytest.raises(ConfigError, match="another recipe.*seed was 1, now is 2"):
        train(tiny(epochs=1, seed=2), out=tmp_path / "a", resume=True, progress=False)
    assert (tmp_path / "a" / "recipe.yaml").read_text() == before
    longer = train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)
    assert [row["epoch"] for row in csv.DictReader((Path(longer.folder) / "metrics.csv").open())] == ["1", "2"]


def test_a_moved_folder_goes_on_and_keeps_its_best_epoch(tmp_path, monkeypatch):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    best = (tmp_path / "a" / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setattr(TrainingModule, "_mean", lambda self, stage, name: 0.0)  # no later epoch is better
    result = train(tiny(epochs=2), out=tmp_path / "b", resume=True, progress=False)
    assert not (tmp_path / "a").exists()
    assert result.epoch == 1
    assert (tmp_path / "b" / "checkpoints" / "best.ckpt").read_bytes() == best


def test_schedules_start_and_end_where_they_say():
    for schedule in ("exponential", "cosine"):
        spec = OptimizerSpec(lr=0.1, lr_end=0.001, schedule=schedule)
        rates = [learning_rate(spec, epoch, 11) for epoch in range(11)]
        assert rates[0] == pytest.approx(0.1)
        assert rates[-1] == pytest.approx(0.001)
        assert rates == sorted(rates, reverse=True)
    assert learning_rate(OptimizerSpec(lr=0.1, lr_end=0.001, schedule="exponential"), 5, 11) == pytest.approx(0.01)


def test_batches_are_a_function_of_seed_and_epoch():
    x, y = torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10)
    batches = Batches(x, y, 4, seed=3)
    first, again = [[b[1].tolist() for b in batches] for _ in range(2)]
    assert first == again
    assert [len(rows) for rows in first] == [4, 4]
    batches.epoch = 1
    assert [b[1].tolist() for b in batches] != first
    assert [len(b[1]) for b in Batches(x, y, 4)] == [4, 4, 2]


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_are_valid(name):
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.model.name in lobit.models.list_models()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs.*got 0"),
        ({"epoch": 3}, "unknown field 'epoch', did you mean 'epochs'"),
        ({"optimizer": {"lr": 0.1, "lr_end": 0.01}}, "lr_end"),
        ({"data": {"name": "digits", "low": 1, "high": 0}}, "below"),
        ({"loss": "hinge"}, "loss.*squared-hinge"),
    ],
)
def test_a_wrong_recipe_names_the_field_and_what_is_allowed(tmp_path, changes, message):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tiny().model_dump() | changes))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_recipes_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'digits-w1a1'"):
        load_recipe("digits-w1a")
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("model: [1, 2\nepochs: 3")
    with pytest.raises(ConfigError, match="not YAML"):
        load_recipe(tmp_path / "bad.yaml")


def test_a_validation_split_that_leaves_no_batch_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="1437 training samples"):
        train(tiny(data={"name": "digits", "validation": 1400}), out=tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x80\x04\x95junk"])
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged or not lobit's"):
        load_model(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(ConfigError, match="no checkpoint of a lobit run"):
        load_model(path)
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        load_model(tmp_path / "missing.ckpt")
