"""Schedules of bits: what each time has, what a change starts anew, and that nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.errors import ConfigError, ExportError
from lobit.optim import clip_latent_weights, parameter_groups
from lobit.quantizers import (
    LSQ,
    ActivationQuantizer,
    CodeDropout,
    Quantized,
    round_in_range,
)
from lobit.training import QuantizationSchedule


def net(bits="W2A2"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    lobit.quantize_(model, bits)
    return model


def widths(model):
    return [
        tuple(32 if quantizer.off else quantizer.bits for quantizer in (layer.weight_quantizer, layer.input_quantizer))
        for layer in model
        if isinstance(layer, lnn.Linear)
    ]


def step(model, optimizer=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loss = model(torch.rand(16, 8, generator=generator)).square().mean()
    loss.backward()
    if optimizer:
        optimizer.step()
        optimizer.zero_grad()
        clip_latent_weights(model)
    return loss.item()


def test_each_time_has_its_widths_and_wider_layers_keep_theirs():
    model = net()
    schedule = QuantizationSchedule(model, {2: "float", 4: "W8A8", 6: "W4A32"})
    seen = {}
    for time in range(8):
        schedule.advance(time)
        step(model)
        seen[time] = widths(model)
    assert seen[0] == seen[1] == [(32, 32)] * 3
    assert seen[2] == seen[3] == [(8, 8)] * 3
    assert seen[4] == seen[5] == [(8, 32), (4, 32), (8, 32)]
    assert seen[6] == seen[7] == [(8, 8), (2, 2), (8, 8)]
    assert schedule.finished
    assert schedule.end == 6


def test_off_is_the_float_layer_in_training_and_in_eval():
    model = net()
    plain = nn.Sequential(nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "quantizer" not in name})
    QuantizationSchedule(model, {1: "float"}).advance(0)
    x = torch.rand(16, 8)
    for mode in (True, False):  # eval before any quantizer has seen data
        torch.testing.assert_close(model.train(mode)(x), plain.train(mode)(x), rtol=0, atol=1e-6)
    loss, other = model.train()(x).square().mean(), plain.train()(x).square().mean()
    loss.backward()
    other.backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, rtol=1e-5, atol=1e-7)


def test_learned_steps_start_when_quantization_starts_in_the_same_parameters():
    model = net()
    schedule = QuantizationSchedule(model, {2: "float", 3: "W8A8"})
    optimizer = torch.optim.Adam(parameter_groups(model, 0.05))
    held = [id(parameter) for parameter in model.parameters()]
    for time in range(2):
        schedule.advance(time)
        step(model, optimizer, time)
    layer = model[3]
    assert not bool(layer.weight_quantizer.started)
    for time in (2, 3):
        schedule.advance(time)
        trained = layer.weight.detach().clone()
        step(model, seed=time)
        hi = layer.weight_quantizer.code_type.hi
        expected = 2 * trained.abs().double().mean(1, keepdim=True) / hi**0.5
        torch.testing.assert_close(layer.weight_quantizer.step.detach(), expected.float())
        assert int(layer.weight_quantizer.width) == (8 if time == 2 else 2)
        optimizer.step()
    assert held == [id(parameter) for parameter in model.parameters()]


def test_a_change_reaches_codes_that_eval_has_kept():
    layer = lnn.Linear(4, 3, weight_quantizer={"name": "linear", "bits": 2})
    schedule = QuantizationSchedule(layer, {1: "float", 2: "W8"})
    layer.eval()
    with torch.no_grad():
        codes = []
        for time in (2, 0, 1, 2):
            schedule.advance(time)
            codes.append(layer.quantized_weight().values().clone())
    assert torch.equal(codes[0], codes[3])
    assert torch.equal(codes[1], layer.weight)
    assert not torch.equal(codes[2], codes[0])


def test_a_loaded_time_lets_the_state_of_the_model_fit(tmp_path):
    model = net()
    schedule = QuantizationSchedule(model, {2: "W8A8"})
    schedule.advance(0)
    step(model)
    torch.save({"schedule": schedule.state_dict(), "model": model.state_dict()}, tmp_path / "state")
    stored = torch.load(tmp_path / "state", weights_only=True)
    other = net()
    with pytest.raises(RuntimeError, match="of 8 bits, this quantizer has 2"):
        other.load_state_dict(stored["model"])
    other = net()
    again = QuantizationSchedule(other, {2: "W8A8"})
    again.load_state_dict(stored["schedule"])
    other.load_state_dict(stored["model"])
    x = torch.rand(5, 8)
    assert torch.equal(model.eval()(x), other.eval()(x))


def test_dropout_of_codes_stays_while_its_quantizer_is_off():
    layer = lnn.Linear(400, 1, weight_quantizer="sign", input_quantizer=CodeDropout(LSQ(4), 0.5))
    schedule = QuantizationSchedule(layer, {1: "float", 2: "W32A8"})
    schedule.advance(0)
    torch.manual_seed(0)
    values = layer.input_quantizer(torch.ones(1, 400)).values()
    assert set(values.unique().tolist()) == {0.0, 2.0}
    schedule.advance(1)
    assert layer.input_quantizer.quantizer.bits == 8
    assert layer.weight_quantizer.off
    assert not layer.exact
    schedule.advance(2)
    assert layer.exact


def test_gradients_follow_g():
    class Zero(lobit.quantizers.GradientQuantizer):
        bits = 2

        def forward(self, x):
            return lobit.quantizers.Quantized(x * 0, torch.ones(()))

    layer = lnn.Linear(4, 3, weight_quantizer="sign", gradient_quantizer=Zero())
    schedule = QuantizationSchedule(layer, {1: "W1A1"})
    for time, passes in ((0, True), (1, False)):
        schedule.advance(time)
        layer.weight.grad = None
        layer(torch.ones(2, 4)).sum().backward()
        assert bool(layer.weight.grad.any()) == passes


def test_a_net_whose_quantizers_are_off_is_not_exported(tmp_path):
    model = net()
    schedule = QuantizationSchedule(model, {1: "W32A8"})
    schedule.advance(0)
    step(model)
    with pytest.raises(ExportError, match=r"'0\.weight_quantizer' is switched off by a schedule"):
        lobit.export(model.eval(), torch.rand(2, 8), tmp_path / "net.lobit")
    model.train()
    schedule.advance(1)
    step(model)
    lobit.export(model.eval(), torch.rand(2, 8), tmp_path / "net.lobit", strict=True)


def test_a_compiled_model_sees_the_changes():
    """Through a backend that runs the graph as it is: what matters is that a change makes a new one."""
    layer = lnn.Linear(8, 4, weight_quantizer={"name": "linear", "bits": 2}, input_quantizer={"name": "linear", "bits": 2})
    schedule = QuantizationSchedule(layer, {1: "float", 2: "W8A8"})
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x, found = torch.rand(3, 8) - 0.5, []
    for time in range(3):
        schedule.advance(time)
        found.append(compiled(x))
        assert torch.equal(found[-1], layer(x))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_times_widths_and_models_that_do_not_fit_are_refused_before_any_training():
    with pytest.raises(ConfigError, match="whole epoch or step, from 1"):
        QuantizationSchedule(net(), {0: "float"})
    with pytest.raises(ConfigError, match="no bit setting"):
        QuantizationSchedule(net(), {1: "eight"})
    with pytest.raises(ConfigError, match="the model has none"):
        QuantizationSchedule(nn.Linear(2, 2), {1: "float"})
    model = lnn.Linear(2, 2, weight_quantizer="sign")
    with pytest.raises(
        ConfigError, match="asks for 8 bits of 'weight_quantizer': quantizer 'sign' has one width.*'lsq' or 'linear', or switch it off"
    ):
        QuantizationSchedule(model, {1: "W8A8"})
    QuantizationSchedule(model, {1: "float"})


def recurrent():
    torch.manual_seed(0)
    return lnn.LSTM(5, 4, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2})


def test_recurrent_layers_follow_in_every_matrix_and_state():
    layer, plain = recurrent(), nn.LSTM(5, 4)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "quantizer" not in name})
    schedule = QuantizationSchedule(layer, {1: "float", 2: "W8A8"})
    x = torch.randn(6, 3, 5)
    schedule.advance(0)
    assert not layer.exact
    torch.testing.assert_close(layer(x)[0], plain(x)[0], rtol=0, atol=1 / 16)  # gates stay on their grid of 1/16
    for time, bits in ((1, 8), (2, 2)):
        schedule.advance(time)
        layer(x)[0].sum().backward()
        held = [part for table in (layer.weight_quantizers, layer.input_quantizers, layer.hidden_quantizers) for part in table.values()]
        assert [quantizer.bits for quantizer in held] == [bits] * 4
        assert all(bool(quantizer.started) for quantizer in held)
    assert layer.exact
    fresh = recurrent()
    fresh.load_state_dict({name: value for name, value in layer.state_dict().items() if "quantizer" not in name})
    torch.testing.assert_close(layer(x)[0], fresh(x)[0], rtol=0, atol=0)


def test_a_delay_of_a_net_that_has_seen_data_starts_its_steps_anew():
    model = net()
    step(model)
    assert bool(model[3].weight_quantizer.started)
    schedule = QuantizationSchedule(model, {1: "float"})
    schedule.advance(0)
    with torch.no_grad():
        model[3].weight.mul_(10)
    schedule.advance(1)
    assert not bool(model[3].weight_quantizer.started)
    step(model)
    expected = 2 * model[3].weight.detach().abs().double().mean(1, keepdim=True)  # hi is 1
    torch.testing.assert_close(model[3].weight_quantizer.step.detach(), expected.float())


def test_weights_with_a_zero_point_are_not_scheduled_to_eight_bits():
    model = nn.Sequential(lnn.Linear(4, 3, weight_quantizer={"name": "affine", "bits": 4, "symmetric": False}))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=r"asks for 8 bits of '0\.weight_quantizer': weights with a zero point have 1 to 7 bits"):
        QuantizationSchedule(model, {1: "float", 2: "W8A32"})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model[0].weight_quantizer.off
    QuantizationSchedule(model, {2: "W7A32"}).advance(0)
    assert model[0].weight_quantizer.bits == 7


class SixByStep(ActivationQuantizer):
    """As the tutorial's: state that depends on bits, made in the constructor."""

    def __init__(self, bits):
        super().__init__()
        self.bits = bits
        self.register_buffer("step", torch.tensor(6.0 / (2**bits - 1)), persistent=False)

    @property
    def code_type(self):
        return lobit.CodeType("unsigned", self.bits)

    def forward(self, x):
        return Quantized(round_in_range(x / self.step, 0, self.code_type.hi), self.step)


class SixThatFollows(SixByStep):
    """With what the refusal asks for."""

    def check_bits(self, bits):
        if bits not in (2, 4, 8):
            raise ConfigError(f"2, 4 or 8 bits, not {bits}")

    def reset(self):
        self.step.fill_(6.0 / (2**self.bits - 1))


def test_a_class_that_does_not_say_that_its_width_may_change_is_refused_one():
    layer = lnn.Linear(4, 3, weight_quantizer="sign", input_quantizer=SixByStep(4))
    with pytest.raises(
        ConfigError, match=r"8 bits of 'input_quantizer': SixByStep does not say .* implement check_bits\(bits\).* and reset\(\)"
    ):
        QuantizationSchedule(layer, {1: "W32A8"})
    with pytest.raises(ConfigError, match="SixByStep"):
        layer.input_quantizer.set_bits(8)
    assert layer.input_quantizer.bits == 4
    QuantizationSchedule(layer, {1: "float"}).advance(0)
    assert layer.input_quantizer.off


def test_a_class_of_ones_own_that_says_so_is_as_one_made_with_the_width():
    layer = lnn.Linear(4, 3, weight_quantizer="sign", input_quantizer=SixThatFollows(4))
    QuantizationSchedule(layer, {1: "W32A8"}).advance(0)
    x = torch.linspace(-1, 7, 50)
    assert torch.equal(layer.input_quantizer(x).codes, SixThatFollows(8)(x).codes)
    layer.input_quantizer.set_bits(2)
    with pytest.raises(ConfigError, match="asks for 5 bits of 'input_quantizer': 2, 4 or 8 bits, not 5"):
        QuantizationSchedule(layer, {1: "W32A5"})


@pytest.mark.parametrize("value", [1, -1])
def test_a_border_of_one_bit_codes_forbids_a_schedule_to_more_bits(value):
    one_bit = {"name": "lsq", "bits": 1, "nonnegative": False}
    model = nn.Sequential(lnn.Conv2d(2, 3, 3, padding=1, padding_value=value, weight_quantizer="sign", input_quantizer=one_bit))
    with pytest.raises(
        ConfigError, match=rf"asks for 8 bits of '0\.input_quantizer': the layer has padding_value={value}, .*or take padding_value=0"
    ):
        QuantizationSchedule(model, {1: "float", 2: "W32A8"})
    assert model[0].input_quantizer.bits == 1
    QuantizationSchedule(model, {1: "float"})
