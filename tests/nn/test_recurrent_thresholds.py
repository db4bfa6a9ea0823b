"""Quantizers with state of each channel in recurrent layers: as many as the input, or the hidden state, has."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from tests.nn import recurrent_oracle as oracle

LAYERS = [lnn.LSTM, lnn.GRU, lnn.RNN]
CELLS = [lnn.LSTMCell, lnn.GRUCell, lnn.RNNCell]
RSIGN = {"weight_quantizer": "sign", "input_quantizer": "rsign"}


def move(layer):
    """Thresholds as training leaves them: other than 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("shift"):
                parameter.normal_().mul_(0.2)
    return layer


@pytest.mark.parametrize("cls", LAYERS)
def test_each_place_has_a_threshold_for_each_of_its_channels(cls):
    layer = cls(5, 6, 2, bidirectional=True, **RSIGN)
    sizes = {key: tuple(quantizer.shift.shape) for key, quantizer in {**layer.input_quantizers, **layer.hidden_quantizers}.items()}
    hidden = {f"hidden_l{layer}{end}": (6,) for layer in range(2) for end in ("", "_reverse")}
    assert sizes == {"input_l0": (5,), "input_l1": (12,), **hidden}


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("setting", [{}, {"num_layers": 2, "bidirectional": True}])
def test_eval_with_thresholds_is_the_formula(cls, setting):
    layer = move(cls(5, 6, **RSIGN, **setting)).eval()
    x = torch.randn(7, 4, 5)
    with torch.no_grad():
        output = layer(x)[0]
    learning = layer(x)[0].detach()  # with gradients: the other path
    for sequence in range(4):
        expected = oracle.layers(layer, x[:, sequence].numpy())[0]
        np.testing.assert_array_equal(output[:, sequence].numpy(), expected)
        np.testing.assert_array_equal(learning[:, sequence].numpy(), expected)


@pytest.mark.parametrize(("cls", "cell"), zip(LAYERS, CELLS, strict=True))
def test_a_cell_with_thresholds_is_a_step_of_the_layer(cls, cell):
    layer, one = move(cls(5, 6, **RSIGN)).eval(), cell(5, 6, **RSIGN).eval()
    one.load_state_dict({key.replace("_l0", ""): value for key, value in layer.state_dict().items()})
    x = torch.randn(1, 4, 5)
    result = one(x[0])
    assert torch.equal(result[0] if isinstance(result, tuple) else result, layer(x)[0][0])


@pytest.mark.parametrize("cls", LAYERS)
def test_thresholds_learn_and_stay_with_the_model(cls):
    layer = cls(5, 6, 2, bidirectional=True, **RSIGN)
    torch.manual_seed(1)
    layer(torch.randn(7, 4, 5))[0].square().sum().backward()
    shifts = {name: parameter for name, parameter in layer.named_parameters() if name.endswith("shift")}
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in shifts.values()), shifts.keys()
    other = cls(5, 6, 2, bidirectional=True, **RSIGN)
    other.load_state_dict(move(layer).state_dict())
    x = torch.randn(3, 2, 5)
    assert torch.equal(other.eval()(x)[0], layer.eval()(x)[0])


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_model_is_quantized_with_thresholds(cls):
    model = nn.ModuleDict({"rnn": cls(5, 6), "head": nn.Linear(6, 3)})
    lobit.quantize_(model, {"bits": "W1A1", "activations": "rsign"}, first=None, last=None)
    x = torch.randn(4, 5) if issubclass(cls, nn.RNNCellBase) else torch.randn(7, 4, 5)
    for training in (True, False):
        output = model.train(training)["rnn"](x)
        while isinstance(output, tuple):
            output = output[0]
        assert model["head"](output).shape == (*x.shape[:-1], 3)


def test_dropout_and_a_given_quantizer_of_hidden_states_have_thresholds_too():
    layer = lnn.LSTM(5, 6, 2, weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.RSign(), 0.5), hidden_quantizer="rsign")
    assert layer.input_quantizers["input_l1"].quantizer.shift.shape == (6,)
    assert layer.hidden_quantizers["hidden_l1"].shift.shape == (6,)
    assert layer(torch.randn(7, 4, 5))[0].shape == (7, 4, 6)


@pytest.mark.parametrize("cls", [*LAYERS, *CELLS])
def test_thresholds_of_another_layer_are_refused(cls):
    used = lnn.Linear(5, 3, weight_quantizer="sign", input_quantizer="rsign").input_quantizer
    before = copy.deepcopy(used.shift)
    with pytest.raises(ConfigError, match=r"thresholds of a Linear .*quantizer of its own"):
        cls(5, 6, weight_quantizer="sign", input_quantizer=used)
    assert torch.equal(used.shift, before)
