"""A run that stops being finite says where: the first layer, what came in and what went out, and what is still good."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit.errors import LobitError
from lobit.training import build_model, load_model, train
from lobit.training.finite import describe_not_finite, first_layer
from lobit.training.module import TrainingModule
from tests.training.test_training import tiny

NAN, INF = float("nan"), float("inf")


def batch(*shape):
    return torch.randn(*shape), torch.zeros(shape[0], dtype=torch.long)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_a_finite_net_has_no_first_layer():
    assert first_layer(net(), nn.CrossEntropyLoss(), batch(6, 4)) is None
    assert describe_not_finite(net()) is None


def test_the_first_of_several_layers_is_named_with_its_weights():
    model = net()
    with torch.no_grad():
        model[0].weight[0, 0] = NAN
        model[2].bias[1] = INF
    found = first_layer(model, nn.CrossEntropyLoss(), batch(6, 4))
    assert "is '0' (Linear): 6 of 30 values (NaN); its input is finite" in found
    assert "'weight' is not finite: 1 of 20 values (NaN)" in found
    assert describe_not_finite(model).startswith("'weight' of '0' (Linear) is not finite")
    assert "1 more: '2.bias'" in describe_not_finite(model)


def test_an_overflow_names_its_layer_and_says_that_input_and_weights_are_finite():
    model = net()
    with torch.no_grad():
        model[2].weight.fill_(3e38)
    found = first_layer(model, nn.CrossEntropyLoss(), (torch.full((2, 4), 100.0), torch.zeros(2, dtype=torch.long)))
    assert "is '2' (Linear)" in found
    assert "its own parameters and statistics are finite" in found


def test_data_and_loss_and_what_no_layer_computes_are_told_apart():
    x, labels = batch(2, 4)
    spoilt = x.clone()
    spoilt[0, 0] = NAN
    assert "the data are not finite: 1 of 8 values (NaN)" in first_layer(net(), nn.CrossEntropyLoss(), (spoilt, labels))
    assert "all layers' outputs are finite, the loss" in first_layer(net(), lambda y, t: y.sum() * NAN, (x, labels))

    class Divides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(self.a(x) / 0.0)

    assert "comes into 'b' (Linear) from outside any layer: 8 of 8" in first_layer(Divides(), nn.CrossEntropyLoss(), (x, labels))


@pytest.mark.parametrize("bits", ["W2A2", "W1A1", None])
def test_a_layer_that_turns_nan_in_a_run_is_named_and_the_last_checkpoint_stays(tmp_path, monkeypatch, bits):
    recipe = tiny(model={"name": "digits-convnet", "bits": bits, "args": {"width": 4}})
    step = TrainingModule.training_step

    def breaks(self, given, index):
        if self.current_epoch == 1 and index == 3:
            self.model[3].weight.data[0, 0, 0, 0] = NAN  # the second convolution
        return step(self, given, index)

    monkeypatch.setattr(TrainingModule, "training_step", breaks)
    with pytest.raises(LobitError) as error:
        train(recipe, out=tmp_path / "a", progress=False)
    told = str(error.value)
    assert "'3'" in told or "'3." in told, told
    assert "epoch 2" in told
    assert "optimizer.lr, now 0.01" in told
    assert "The checkpoint of epoch 1 is as it was" in told
    monkeypatch.undo()
    load_model(tmp_path / "a")
    train(recipe, out=tmp_path / "b", progress=False)
    train(recipe, out=tmp_path / "a", resume=True, progress=False)
    states = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for name in "ab"]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_statistic_that_signs_hide_from_the_loss_is_found_before_validation(tmp_path, monkeypatch):
    look = TrainingModule.on_train_batch_end

    def spoilt(self, outputs, given, index):
        if index == 2:
            next(buffer for name, buffer in self.model.named_buffers() if name.endswith("running_var"))[1] = INF
        look(self, outputs, given, index)

    monkeypatch.setattr(TrainingModule, "on_train_batch_end", spoilt)
    monkeypatch.setattr(TrainingModule, "validation_step", lambda *_: pytest.fail("it was validated"))
    with pytest.raises(
        LobitError, match=r"'running_var' of '1' \(BatchNorm2d\) is not finite: 1 of 4 values \(infinite\).*No epoch was finished"
    ):
        train(tiny(), out=tmp_path / "a", progress=False)


def test_a_quantizer_that_refuses_its_first_batch_is_told_after_the_layer_that_made_it(tmp_path, monkeypatch):
    def broken(recipe):
        model = build_model(recipe)
        model[1].weight.data[0] = NAN  # the first batch norm
        return model

    monkeypatch.setattr("lobit.training.run.build_model", broken)
    with pytest.raises(
        LobitError, match=r"first layer whose output is not finite is '1' \(BatchNorm2d\).*'weight' is not finite.*epoch 1, batch 1"
    ):
        train(tiny(), out=tmp_path / "a", progress=False)
