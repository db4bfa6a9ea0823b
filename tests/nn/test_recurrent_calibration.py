"""Calibration of recurrent layers: their quantizers see the inputs and the states of all steps, and eval is the formula afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from tests.nn import recurrent_oracle as oracle

TORCH = {"lstm": (nn.LSTM, {}), "gru": (nn.GRU, {}), "tanh": (nn.RNN, {}), "relu": (nn.RNN, {"nonlinearity": "relu"})}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "tanh": nn.RNNCell}
LSQ4 = {"name": "lsq", "bits": 4}


class Tagger(nn.Module):
    """A recurrent layer and a linear one."""

    def __init__(self, kind, **settings):
        super().__init__()
        torch.manual_seed(0)
        cls, more = TORCH[kind]
        self.rnn = cls(5, 6, **settings, **more)
        self.head = nn.Linear(6 * (2 if self.rnn.bidirectional else 1), 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Packed(Tagger):
    """The same for sequences of several lengths."""

    def forward(self, x, lengths):
        return self.head(self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data)


class Loop(nn.Module):
    """A cell in a loop."""

    def __init__(self, kind):
        super().__init__()
        self.cell = CELLS[kind](5, 6)

    def forward(self, x):
        state, outputs = None, []
        for step in x:
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)


def data(seed=1, batches=3):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(7, 4, 5, generator=generator) for _ in range(batches)]


def quantized(model, policy):
    lobit.quantize_(model, policy, first=None, last=None)
    return model


def of_activations(layer):
    return {**layer.input_quantizers, **layer.hidden_quantizers}


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("policy", ["W4A4", "W2A2", "W1A1"])
@pytest.mark.parametrize(("method", "trained"), [("mse", False), ("mse", True), ("min-max", False), ("percentile", True)])
def test_eval_is_the_formula_after_calibration(kind, policy, method, trained):
    model = quantized(Tagger(kind, num_layers=2, bidirectional=True), policy)
    x = data()
    if trained:
        model(torch.ones(7, 4, 5)).square().sum().backward()
    lobit.calibrate(model, x, method=method)
    assert model.training
    assert all(quantizer.has_started for quantizer in of_activations(model.rnn).values())
    with torch.no_grad():
        output = model.eval().rnn(x[0])[0]
    for sequence in range(4):
        np.testing.assert_array_equal(output[:, sequence].numpy(), oracle.layers(model.rnn, x[0][:, sequence].numpy())[0])
    assert model(x[0]).shape == (7, 4, 3)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("trained", [False, True])
def test_ranges_are_those_of_inputs_and_states_of_all_steps_in_float(kind, trained):
    model = quantized(Tagger(kind, num_layers=2, bidirectional=True), "W4A4")
    x = data()
    if trained:
        model(x[0])
    lobit.calibrate(model, x, method="min-max")
    in_float = copy.deepcopy(model.rnn).eval()
    in_float.input_quantizers.clear()
    in_float.hidden_quantizers.clear()
    lower = copy.deepcopy(in_float)
    lower.num_layers = 1
    with torch.no_grad():
        first, second = ([layer(batch)[0] for batch in x] for layer in (lower, in_float))
    seen = {"input_l0": torch.cat(x), "input_l1": torch.cat(first)}
    for layer, states in enumerate((torch.cat(first), torch.cat(second))):
        seen[f"hidden_l{layer}"], seen[f"hidden_l{layer}_reverse"] = states.chunk(2, -1)
    for key, quantizer in of_activations(model.rnn).items():
        code = quantizer.code_type
        assert (code.lo == 0) == (kind == "relu" and key != "input_l0")
        low, high = seen[key].min().item(), seen[key].max().item()
        assert quantizer.step.item() == pytest.approx(max(high / code.hi, low / code.lo if code.lo else 0), rel=1e-5), key


@pytest.mark.parametrize("kind", TORCH)
def test_padding_of_packed_sequences_is_not_seen(kind):
    lengths = [3, 7, 1, 5]
    (x,) = data(batches=1)
    together, alone = (quantized(cls(kind, num_layers=2, bidirectional=True), "W4A4") for cls in (Packed, Tagger))
    padded = x.clone()
    for sequence, length in enumerate(lengths):
        padded[length:, sequence] = 1e6
    lobit.calibrate(together, [(padded, torch.tensor(lengths))])
    lobit.calibrate(alone, [x[:length, sequence : sequence + 1] for sequence, length in enumerate(lengths)])
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("policy", ["W4A4", "W1A1"])
def test_a_cell_is_calibrated_at_each_of_its_steps(kind, policy):
    model = quantized(Loop(kind), policy)
    x = data()
    lobit.calibrate(model, x, method="min-max")
    in_float = copy.deepcopy(model).eval()
    in_float.cell.input_quantizers.clear()
    in_float.cell.hidden_quantizers.clear()
    states = torch.cat([in_float(batch) for batch in x]).detach()
    hidden = model.cell.hidden_quantizers["hidden"]
    if policy == "W4A4":
        assert hidden.step.item() == pytest.approx(max(states.max().item() / 7, states.min().item() / -8), rel=1e-5)
    output = model.eval()(x[0]).detach()
    layer = TORCH[kind][0](5, 6)
    layer.load_state_dict({f"{name}_l0": value for name, value in model.cell.named_parameters() if "." not in name})
    layer = quantized(nn.Sequential(layer), policy)
    for of_layer, of_cell in zip(of_quantizers(layer[0]), of_quantizers(model.cell), strict=True):
        of_layer.load_state_dict(of_cell.state_dict())
    for sequence in range(4):
        np.testing.assert_array_equal(output[:, sequence].numpy(), oracle.layers(layer[0], x[0][:, sequence].numpy())[0])


def of_quantizers(layer):
    return [*layer.weight_quantizers.values(), *of_activations(layer).values()]


def test_a_first_state_that_is_given_is_seen_and_zeros_are_not():
    layer = lnn.GRUCell(5, 6, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    x = data(batches=1)[0][0]
    state = torch.zeros(4, 6)
    state[1] = 9.0

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = layer

        def forward(self, x, h):
            return self.cell(x, h)

    lobit.calibrate(Step(), (x, torch.zeros(4, 6)), method=Q.Percentile(60))
    small = layer.hidden_quantizers["hidden"].step.item()
    in_float = copy.deepcopy(layer).eval()
    in_float.input_quantizers.clear()
    in_float.hidden_quantizers.clear()
    states = in_float(x, torch.zeros(4, 6)).detach().abs().numpy()
    assert small == pytest.approx(np.percentile(states, 60) / 7, rel=0.02)
    lobit.calibrate(Step(), (x, state), method="min-max")
    assert layer.hidden_quantizers["hidden"].step.item() == pytest.approx(9 / 7)


@pytest.mark.parametrize("name", ["lsq", "lsq_plus", "affine"])
@pytest.mark.parametrize("hidden", ["lsq", "lsq_plus", "affine", "sign", None])
def test_every_kind_of_range_can_be_calibrated(name, hidden):
    side = hidden if hidden in ("sign", None) else {"name": hidden, "bits": 4}
    layer = lnn.LSTM(5, 6, 2, weight_quantizer=LSQ4, input_quantizer={"name": name, "bits": 4}, hidden_quantizer=side)
    x = data()
    reference = copy.deepcopy(layer).eval()
    for table in (reference.weight_quantizers, reference.input_quantizers, reference.hidden_quantizers):
        table.clear()
    lobit.calibrate(layer, x)
    with torch.no_grad():
        error = (layer.eval()(x[0])[0] - reference(x[0])[0]).square().mean()
    assert error < (0.2 if hidden == "sign" else 0.02)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("hidden", ["as_input", LSQ4])
def test_a_first_batch_of_zeros_decides_nothing_and_the_next_one_does(kind, hidden):
    cls = {"lstm": lnn.LSTM, "gru": lnn.GRU}.get(kind, lnn.RNN)
    layer = cls(5, 6, weight_quantizer=LSQ4, input_quantizer=LSQ4, hidden_quantizer=hidden, bias=False, **TORCH[kind][1])
    for learning in (True, False):
        with torch.set_grad_enabled(learning):
            assert not layer(torch.zeros(7, 4, 5))[0].any()
    assert not any(quantizer.has_started for quantizer in of_activations(layer).values())
    (x,) = data(batches=1)
    fresh = copy.deepcopy(layer)
    layer(x)[0].sum().backward()
    fresh(x)
    assert all(quantizer.has_started for quantizer in of_activations(layer).values())
    assert torch.equal(layer.eval()(x)[0], fresh.eval()(x)[0])


def test_an_undecided_quantizer_of_hidden_states_starts_in_calibrating_and_is_named_before():
    layer = lnn.LSTM(5, 6, weight_quantizer="magnitude_sign", input_quantizer="sign", hidden_quantizer=LSQ4).eval()
    (x,) = data(batches=1)
    for learning in (True, False):
        with torch.set_grad_enabled(learning), pytest.raises(ConfigError, match="hidden_l0 of a LSTM of 6 units has not seen data"):
            layer(x)
    with Q.calibrating(layer):
        layer(x)
    assert str(layer.hidden_quantizers["hidden_l0"].code_type) == "signed4"
    np.testing.assert_array_equal(layer(x)[0][:, 0].detach().numpy(), oracle.layers(layer, x[:, 0].numpy())[0])


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_another_width_starts_from_states_of_all_steps_again(kind):
    (x,) = data(batches=1)
    layer = {"lstm": lnn.LSTM, "gru": lnn.GRU, "tanh": lnn.RNN}[kind](5, 6, weight_quantizer=LSQ4, input_quantizer=LSQ4)
    fresh = copy.deepcopy(layer)
    layer(x)
    for quantizers in (of_activations(layer), of_activations(fresh)):
        for quantizer in quantizers.values():
            quantizer.set_bits(3)
    layer(x)
    fresh(x)
    for key, quantizer in of_activations(layer).items():
        assert quantizer.has_started
        assert quantizer.step.item() == pytest.approx(of_activations(fresh)[key].step.item(), rel=1e-6), key
