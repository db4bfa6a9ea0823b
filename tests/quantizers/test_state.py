"""The state of learned steps: where it comes from, how it is kept, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.quantizers import registry
from lobit.quantizers.lsq import scale_gradient

LSQ4 = {"name": "lsq", "bits": 4}


def test_calibrating_starts_quantizers_and_leaves_all_else_alone():
    torch.manual_seed(0)
    layer = lnn.Linear(6, 4, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    model = nn.Sequential(lnn.BatchNorm1d(6), layer).train()
    model[0].eval()
    x = torch.randn(16, 6)
    before = copy.deepcopy(model[0].state_dict())
    with Q.calibrating(model):
        y = model(x)
    assert not y.requires_grad
    assert [module.training for module in (model, model[0], layer, layer.input_quantizer)] == [True, False, True, True]
    for key, value in model[0].state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    torch.testing.assert_close(model.eval()(x), y, rtol=0, atol=0)
    step = layer.input_quantizer.step.item()
    with Q.calibrating(model):
        model(100 * x)
    assert layer.input_quantizer.step.item() == step


@pytest.mark.parametrize(("forced", "code"), [(True, "unsigned3"), (False, "signed3")])
def test_the_sign_of_the_input_can_be_forced(forced, code):
    quantizer = Q.LSQ(3, nonnegative=forced)
    assert str(quantizer.code_type) == code
    with pytest.raises(ConfigError, match="step is not set"):
        quantizer.eval()(torch.ones(2))
    with pytest.raises(ConfigError, match="step is not set"):
        quantizer.steps()
    quantizer.train()(torch.tensor([-1.0, 2.0]) if forced else torch.tensor([1.0, 2.0]))
    assert str(quantizer.code_type) == code


def test_the_forced_sign_of_one_bit_needs_no_data():
    quantizer = Q.LSQ(1, nonnegative=False).eval()
    assert quantizer(torch.tensor([-2.0, 0.0])).codes.tolist() == [-1.0, 1.0]


def test_a_batch_of_zeros_decides_nothing():
    quantizer = Q.LSQ(4)
    x = torch.zeros(5, requires_grad=True)
    q = quantizer(x)
    assert (q.values() == 0).all()
    assert quantizer.nonnegative is None
    quantizer(torch.tensor([-1.0, 1.0]))
    assert quantizer.nonnegative is False
    assert quantizer.step.item() == pytest.approx(2 / np.sqrt(7))


@pytest.mark.parametrize(("x", "message"), [([], "empty"), ([1.0, float("nan")], "finite"), ([float("inf")], "finite")])
def test_a_useless_first_batch_is_refused_by_name(x, message):
    quantizer = Q.LSQ(4)
    quantizer.owner = "layer 'conv1'"
    with pytest.raises(ConfigError, match=f"conv1.*{message}"):
        quantizer(torch.tensor(x))
    assert quantizer.nonnegative is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["weight_quantizer", "input_quantizer"])
def test_eval_refuses_a_step_that_is_not_finite(side, wrong):
    layer = lnn.Linear(3, 2, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    x = torch.rand(4, 3)
    layer(x)
    with torch.no_grad():
        getattr(layer, side).step.flatten()[0] = wrong
    layer.eval()
    with pytest.raises(ConfigError, match=r"step of a Linear with weights of shape \(2, 3\) is (nan|inf)"):
        layer(x)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("side", ["weight_quantizer", "input_quantizer"])
def test_a_step_at_or_below_zero_means_the_same_in_eval_as_in_training(side, low):
    """An optimizer may leave one behind after its last step; evaluation must neither fail nor mirror the codes."""
    torch.manual_seed(5)
    layer = lnn.Linear(3, 2, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    x = torch.randn(4, 3)
    layer(x)
    with torch.no_grad():
        getattr(layer, side).step.flatten()[0] = low
    in_eval = layer.eval()(x)
    assert getattr(layer, side).step.flatten()[0] == low  # eval changes no parameter
    torch.testing.assert_close(layer.train()(x), in_eval, rtol=0, atol=0)


def test_a_quantized_state_reloads_exactly_before_and_after_its_start():
    torch.manual_seed(1)

    def make():
        return lnn.Conv2d(3, 5, 3, weight_quantizer=LSQ4, input_quantizer=LSQ4)

    fresh, started = make(), make()
    x = torch.randn(2, 3, 6, 6)
    started(x)
    copied = make()
    copied(x.abs())
    copied.load_state_dict(fresh.state_dict(), strict=True)
    assert copied.input_quantizer.nonnegative is None
    with pytest.raises(ConfigError, match="calibration"):
        copied.eval()(x)
    copied.load_state_dict(started.state_dict(), strict=True)
    assert copied.weight_quantizer.step.shape == (5, 1, 1, 1)
    torch.testing.assert_close(copied.eval()(x), started.eval()(x), rtol=0, atol=0)
    for a, b in zip(copied.state_dict().values(), started.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_part_of_a_quantizers_state_is_not_a_float_checkpoint():
    layer = lnn.Linear(3, 2, weight_quantizer=LSQ4)
    state = layer.state_dict()
    del state["weight_quantizer.step"]
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_quantizer\.step"):
        layer.load_state_dict(state, strict=True)


def test_weight_steps_follow_the_weights_until_training_begins():
    torch.manual_seed(2)
    layer = lnn.Linear(8, 3, weight_quantizer=LSQ4, input_quantizer="sign").eval()
    with torch.no_grad():
        first = layer.quantized_weight()
        layer.weight.mul_(3)
        second = layer.quantized_weight()
    torch.testing.assert_close(second.scale, 3 * first.scale)
    layer.train()(torch.randn(2, 8))
    with torch.no_grad():
        layer.weight.mul_(3)
        torch.testing.assert_close(layer.eval().quantized_weight().scale, second.scale)


def test_weights_that_are_all_zero_stay_zero():
    for name in ({"name": "lsq", "bits": 2}, "magnitude_sign", {"name": "dorefa", "bits": 1}):
        layer = lnn.Linear(4, 2, weight_quantizer=name, input_quantizer="sign")
        nn.init.zeros_(layer.weight)
        y = layer(torch.randn(3, 4))
        y.sum().backward()
        torch.testing.assert_close(y.detach(), layer.bias.detach().expand(3, 2), rtol=0, atol=1e-6)
        assert torch.isfinite(layer.weight.grad).all()


def test_one_quantizer_cannot_serve_two_layers_whose_steps_it_would_hold():
    quantizer = Q.LSQWeights(4)
    lnn.Linear(3, 2, weight_quantizer=quantizer)
    with pytest.raises(ConfigError, match="of its own"):
        lnn.Linear(3, 5, weight_quantizer=quantizer)


@pytest.mark.parametrize("seed", range(3))
def test_scaling_the_gradient_leaves_the_step_bit_for_bit(seed):
    step = (torch.rand(1000, generator=torch.Generator().manual_seed(seed)) + 1e-3).requires_grad_()
    scaled = scale_gradient(step, 1 / 57.3)
    assert torch.equal(scaled, step)
    scaled.sum().backward()
    torch.testing.assert_close(step.grad, torch.full_like(step, 1 / 57.3))


def test_gradients_flow_in_eval_too():
    torch.manual_seed(3)
    layer = lnn.Linear(6, 4, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    x = torch.randn(5, 6, requires_grad=True)
    (trained,) = torch.autograd.grad(layer(x).square().sum(), x)
    (in_eval,) = torch.autograd.grad(layer.eval()(x).square().sum(), x)
    torch.testing.assert_close(in_eval, trained)
    assert trained.abs().max() > 0


def test_a_layer_used_twice_in_one_pass_takes_both_gradients():
    torch.manual_seed(4)
    layer = lnn.Linear(4, 4, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    layer(torch.randn(8, 4))
    x = torch.randn(3, 4)
    layer(layer(x)).sum().backward()
    assert layer.weight_quantizer.step.grad.abs().sum() > 0


def test_all_processes_start_from_the_same_statistics(tmp_path, monkeypatch):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        other = Q.Observer()
        other.see(torch.tensor([-5.0, 7.0]))  # what a second process would bring

        def with_another_process(tensor, op):
            if op == dist.ReduceOp.MAX:
                theirs = tensor.new_tensor([-other.lowest, other.highest, other.exponent, -torch.inf, -torch.inf])
                tensor.copy_(torch.maximum(tensor, theirs))
            else:
                tensor += torch.stack([other.counts, other.sums])

        monkeypatch.setattr(dist, "all_reduce", with_another_process)
        quantizer = Q.LSQ(3)
        quantizer(torch.tensor([4.0, 4.0]))
        assert quantizer.nonnegative is False
        assert quantizer.step.item() == pytest.approx(2 * 5 / np.sqrt(3))
    finally:
        monkeypatch.undo()
        dist.destroy_process_group()


def test_the_plain_sign_has_no_step_to_learn():
    """Data-parallel training waits for the gradient of every parameter that asks for one."""
    quantizer = Q.LSQ(1)
    assert quantizer.step.requires_grad
    quantizer(torch.tensor([-1.0, 2.0]))
    assert not quantizer.step.requires_grad
    quantizer.reset()
    assert quantizer.step.requires_grad
    assert not Q.LSQ(1, nonnegative=False).step.requires_grad
    assert Q.LSQ(2, nonnegative=False).step.requires_grad


STATEFUL = [lambda: Q.LSQ(4), lambda: Q.PACT(4), lambda: Q.LSQPlus(4), lambda: Q.get({"name": "affine", "bits": 4}, "activations"), Q.RSign]


@pytest.mark.parametrize("make", STATEFUL)
@pytest.mark.parametrize("around", [lambda q: q, lambda q: Q.CodeDropout(q, 0.5)], ids=["bare", "dropout"])
def test_one_activation_quantizer_cannot_serve_two_layers_whose_state_it_would_hold(make, around):
    quantizer = make()
    first = lnn.Linear(3, 2, input_quantizer=quantizer)
    with pytest.raises(ConfigError, match=r"a Linear with weights of shape \(2, 3\).*of its own"):
        lnn.Linear(3, 5, input_quantizer=around(quantizer))
    assert first.input_quantizer.owner == "a Linear with weights of shape (2, 3)"


@pytest.mark.parametrize("make", [Q.Sign, lambda: Q.LinearQuant(4), lambda: Q.DoReFaActivations(4)])
def test_an_activation_quantizer_without_state_may_serve_many_layers(make):
    quantizer = make()
    layers = [lnn.Linear(3, 2, input_quantizer=quantizer) for _ in range(2)]
    assert layers[0].input_quantizer is layers[1].input_quantizer


def test_a_copy_of_a_quantizer_and_one_whose_layer_is_gone_are_free():
    quantizer = Q.LSQ(4)
    layer = lnn.Linear(3, 2, input_quantizer=quantizer)
    lnn.Linear(3, 2, input_quantizer=copy.deepcopy(quantizer))
    layer.set_quantizers(None, quantizer)  # its own
    del layer
    lnn.Linear(3, 2, input_quantizer=quantizer)


def test_places_of_a_recurrent_layer_cannot_share_a_quantizer_with_state():
    quantizer = Q.LSQ(4, nonnegative=False)
    with pytest.raises(ConfigError, match=r"hidden_l0 of a LSTM.*of its own"):
        lnn.LSTM(3, 4, bidirectional=True, hidden_quantizer=lambda: quantizer)
    layer = lnn.LSTM(3, 4, num_layers=2, bidirectional=True, input_quantizer=quantizer)
    with pytest.raises(ConfigError, match="input_l0"):
        lnn.Linear(3, 2, input_quantizer=quantizer)
    assert layer.input_quantizers["input_l0"] is quantizer


def quantizer_class(name):
    """A class of this name, as a cell of a notebook defines it anew each time that it runs."""
    return type(name, (Q.WeightQuantizer,), {"__module__": "notebook", "__qualname__": name})


def test_a_name_belongs_to_one_class_which_may_be_defined_again(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    with pytest.raises(
        ConfigError, match=r"'ternary' of weights is lobit\.quantizers\.ternary\.TernaryWeights already; register Mine under another"
    ):
        Q.register("ternary")(quantizer_class("Mine"))
    assert type(Q.get("ternary", "weights")) is Q.TernaryWeights
    Q.register("mine")(quantizer_class("Mine"))
    again = Q.register("mine")(quantizer_class("Mine"))
    assert type(Q.get("mine", "weights")) is again


def test_a_recurrent_layer_waits_through_a_batch_of_zeros():
    layer = lnn.LSTM(5, 4, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    for x, waits in ((torch.zeros(3, 2, 5), True), (torch.randn(3, 2, 5), False)):
        layer(x)[0].sum().backward()
        assert layer.input_quantizers["input_l0"].undecided is waits


@pytest.mark.parametrize(
    ("role", "name", "setting"),
    [
        ("weights", "affine", "per_channel"),
        ("weights", "affine", "symmetric"),
        ("activations", "affine", "symmetric"),
        ("activations", "affine", "signed"),
        ("activations", "lsq", "nonnegative"),
        ("weights", "ternary", "per_channel"),
        ("gradients", "linear", "inputs_only"),
    ],
)
@pytest.mark.parametrize("value", ["no", "false", "", 0, 1])
def test_only_true_and_false_are_flags(role, name, setting, value):
    bits = 2 if name == "ternary" else 4
    with pytest.raises(ConfigError, match=rf"{setting} .*True.*False.* not {value!r}"):
        Q.get({"name": name, "bits": bits, setting: value}, role)
    assert Q.get({"name": name, "bits": bits, setting: False}, role)


def test_learned_steps_of_weights_that_belong_to_no_layer_yet_say_so():
    quantizer, weight = Q.LSQWeights(2), torch.randn(6, 4)
    with pytest.raises(ConfigError, match=r"does not know how many channels.*attach\(weight\) first"):
        quantizer(weight)
    quantizer.attach(weight)
    assert quantizer(weight).scale.shape == (6, 1)
