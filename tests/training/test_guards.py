"""Guards name the layer, and say why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.errors import ConfigError, LobitError
from lobit.training import QuantizationSchedule, Starved, all_finite, check_finite, guards


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_the_first_layer_that_turns_nan_is_named_in_a_loop_of_ones_own():
    model = net()
    model[2].weight.data[0, 0] = float("nan")
    with (
        pytest.raises(LobitError, match=r"first layer whose output is not finite is '2' \(Linear\): 6 of 18.*Lower the learning rate"),
        all_finite(model),
    ):
        model(torch.rand(6, 4)).sum().backward()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_error_that_nan_leads_to_is_told_as_nan():
    model = nn.Sequential(nn.Linear(4, 4), lnn.Linear(4, 2, input_quantizer={"name": "lsq", "bits": 2}))
    model[0].bias.data[0] = float("inf")
    with pytest.raises(LobitError, match=r"is '0' \(Linear\).*'bias' is not finite"), all_finite(model):
        model(torch.rand(6, 4))
    with pytest.raises(ZeroDivisionError), all_finite(model):
        1 / 0  # noqa: B018


def test_gradients_and_statistics_are_looked_at_too():
    model = net()
    with all_finite(model):
        loss = model(torch.rand(6, 4)).sum()
        loss.backward()
    check_finite(model)
    model[0].weight.grad[1, 1] = float("inf")
    with pytest.raises(LobitError, match=r"the gradient of 'weight' of '0' \(Linear\) is not finite: 1 of 20 values \(infinite\)"):
        check_finite(model)
    with pytest.raises(LobitError, match="the gradient of 'weight'"), all_finite(model):
        pass


def starve(model, x, patience=3, steps=None, prepare=None, loss=lambda y: y.square().sum()):
    """The messages, and the step of each."""
    told = []
    guard = Starved(model, patience, lambda message: told.append((step, message)))
    for step in range(steps or patience + 3):  # told by it
        model.zero_grad()
        if prepare:
            prepare(step)
        loss(model(x)).backward()
        guard.check()
    guard.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return told


def one_bit(**settings):
    torch.manual_seed(0)
    return nn.Sequential(
        lnn.Linear(8, 6, weight_quantizer="sign"),
        nn.Hardtanh(),
        lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer="sign"),
        **settings,
    )


def test_a_net_that_learns_is_not_starved():
    assert starve(one_bit(), torch.rand(10, 8) / 8, steps=10) == []


@pytest.mark.parametrize("patience", [1, 3])
def test_saturated_activations_are_the_reason(patience):
    model = one_bit()
    model[0].bias.data.fill_(50.0)
    told = starve(model, torch.rand(10, 8), patience)
    assert [step for step, _ in told] == [patience - 1]
    assert told[0][1].startswith(
        f"'0' (Linear) is starved: no gradient has reached its weights for {'a step' if patience == 1 else '3 steps'}"
    )
    assert "behind it, '1' (Hardtanh) lets no gradient through" in told[0][1]


def test_an_input_quantizer_that_cuts_is_named():
    model = nn.Sequential(
        lnn.Linear(8, 6, weight_quantizer="sign"), lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer="stochastic_sign")
    )
    model[0].bias.data.fill_(50.0)
    drawn = torch.get_rng_state()
    (told,) = starve(model, torch.rand(10, 8))
    assert "behind it, '1.input_quantizer' (StochasticSign) lets no gradient through" in told[1]
    torch.set_rng_state(drawn)


def test_latent_weights_outside_of_the_window_are_the_reason():
    class Clipped(lobit.quantizers.SignWeights):
        def forward(self, x):
            return lobit.quantizers.Quantized(lobit.quantizers.sign(x), torch.ones(()), 0)

    model = nn.Sequential(lnn.Linear(8, 3, weight_quantizer=Clipped()), nn.BatchNorm1d(3))
    model[0].weight.data.mul_(100)
    model[0].weight.data.add_(model[0].weight.data.sign() * 2)
    (told,) = starve(model, torch.rand(10, 8))
    assert "are all outside of the window of quantizer 'sign': clip them after each step (lobit.optim.clip_latent_weights)" in told[1]


def test_zero_inputs_unused_and_frozen_layers_are_told_apart():
    model = one_bit()
    assert "its input is all zero" in starve(model, torch.zeros(10, 8))[0][1]
    two = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)})
    guard_told = []
    guard = Starved(two, 2, guard_told.append)
    for _ in range(2):
        two["a"](torch.rand(2, 4)).sum().backward()
        guard.check()
    assert guard_told[0].startswith("'b' (Linear) is starved")
    assert "it did not run in the last forward pass" in guard_told[0]
    cut = starve(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), torch.rand(2, 4), prepare=None, loss=lambda y: y.detach().sum().requires_grad_()
    )
    assert "not in the graph of the loss: the layer is not used, or its output is detached" in cut[0][1]
    frozen = one_bit()
    frozen[0].weight.requires_grad_(False)
    assert "its weights are frozen" in starve(frozen, torch.rand(10, 8))[0][1]
    flat = starve(one_bit(), torch.rand(10, 8) / 8, loss=lambda y: (y * 0).sum())
    assert "the loss does not depend on what it gives" in flat[1][1]


def test_a_layer_is_told_once_and_again_after_it_has_had_a_gradient():
    model = one_bit()
    held = model[0].bias.detach().clone()
    told = starve(
        model, torch.rand(10, 8) / 8, 2, 9, lambda step: model[0].bias.data.copy_(held if step == 4 else torch.full_like(held, 50.0))
    )
    assert [step for step, _ in told] == [1, 6]


def test_the_whole_gradient_is_read_where_its_beginning_is_zero(monkeypatch):
    monkeypatch.setattr(guards, "LOOK", 4)
    layer = nn.Linear(8, 2, bias=False)
    layer.weight.grad = torch.zeros(2, 8)
    guard = Starved(layer, 1, lambda message: None)
    assert guard.check() == [""]
    layer.weight.grad[1, 7] = 1e-30
    assert guard.check() == []


def test_a_quantizer_that_is_off_is_no_reason():
    model = one_bit()
    QuantizationSchedule(model, {1: "float"}).advance(0)
    assert starve(model, torch.rand(10, 8) * 100 + 100, loss=lambda y: y.sum())[0][1].endswith(
        "'1' (Hardtanh) lets no gradient through, as all its input is outside of its window"
    )


def test_actions_warn_raise_and_are_checked():
    layer = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="is starved"):
        Starved(layer, 1).check()
    with pytest.raises(LobitError, match="is starved"):
        Starved(layer, 1, "error").check()
    with pytest.raises(ConfigError, match="from 1, not 0"):
        Starved(layer, 0)
    with pytest.raises(ConfigError, match="'warn', 'error' or callable, not 'stop'"):
        Starved(layer, 1, "stop")


def test_a_matrix_of_a_recurrent_layer_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(lnn.LSTM(4, 3, weight_quantizer="sign"))
    told = starve(model, torch.zeros(5, 2, 4), loss=lambda y: y[0].sum())
    assert [message.partition(" is starved")[0] for _, message in told] == ["'0.weight_ih_l0' (LSTM)"]
    assert "its input is all zero" in told[0][1]


class Named(nn.Module):
    """Layers that are called by keyword."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, *, x):
        return self.b(input=torch.relu(self.a(input=x)))


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(3, 4)
        lobit.quantize_(self, "W4A4", first=None, last=None)

    def forward(self, x):
        return self.cell(x)[0].data


@pytest.mark.parametrize("kind", [Named, Packed])
def test_inputs_by_keyword_and_packed_ones_are_seen(kind):
    torch.manual_seed(0)
    model = kind()
    rows = torch.randn(5, 4 if kind is Named else 3)
    run = (lambda x: model(x=x)) if kind is Named else lambda x: model(nn.utils.rnn.pack_sequence([x[:3], x[3:]]))
    run(rows)
    with pytest.raises(LobitError, match="comes into '?.*from outside any layer"), all_finite(model):
        run(rows * float("nan"))
    said = []
    guard = Starved(model, 1, said.append)
    run(rows * 0).mul(0).sum().backward()
    guard.check()
    assert said
    assert all("it did not run" not in each for each in said)
