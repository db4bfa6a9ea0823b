"""Recurrent layers: without quantizers torch's; with them exact in eval, whatever the batch, the order in memory or the packing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError, ShapeError
from lobit.quantizers import calibrating
from tests.nn import recurrent_oracle as oracle

KINDS = {
    "lstm": (lnn.LSTM, nn.LSTM, {}),
    "gru": (lnn.GRU, nn.GRU, {}),
    "tanh": (lnn.RNN, nn.RNN, {}),
    "relu": (lnn.RNN, nn.RNN, {"nonlinearity": "relu"}),
}
SETTINGS = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "batch_first": True, "bias": False},
]
FAMILIES = [
    ({"name": "lsq", "bits": 4}, {"name": "lsq", "bits": 4}),
    ({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8}),
    ("magnitude_sign", {"name": "lsq", "bits": 1}),
    ("sign", {"name": "linear", "bits": 2}),
    ({"name": "dorefa", "bits": 3}, {"name": "dorefa", "bits": 3}),
    ({"name": "linear", "bits": 4}, "sign"),
]


def make(kind, family, inputs=5, units=6, seed=0, **more):
    torch.manual_seed(seed)
    cls, _, extra = KINDS[kind]
    layer = cls(inputs, units, weight_quantizer=family[0], input_quantizer=family[1], **extra, **more)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith(("weight_ih", "weight_hh")):
                parameter.mul_(3)  # gates that move
    layer(torch.randn(7, 4, inputs) * 2 if not layer.batch_first else torch.randn(4, 7, inputs) * 2)
    for quantizer in [*layer.input_quantizers.values(), *layer.hidden_quantizers.values()]:
        quantizer(torch.ones(1, units))  # where all units of a ReLU were dead, it has not started
    return layer.eval()


def pair_of_states(layer, batch):
    number = len(layer.places())
    h, c = torch.rand(number, batch, layer.hidden_size) * 2 - 1, torch.randn(number, batch, layer.hidden_size) * 4
    return h, c, (h, c) if layer.kind == "lstm" else h


def tensors(result):
    output, states = result
    return [output, *(states if isinstance(states, tuple) else [states])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("form", ["batch", "single", "packed", "state"])
def test_a_layer_without_quantizers_is_torchs(kind, setting, form):
    torch.manual_seed(0)
    cls, theirs_cls, extra = KINDS[kind]
    ours, theirs = cls(5, 6, **setting, **extra), theirs_cls(5, 6, **setting, **extra)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(7, 5) if form == "single" else torch.randn(4, 7, 5) if setting.get("batch_first") else torch.randn(7, 4, 5)
    given = [x]
    if form == "packed":
        given = [pack_sequence([torch.randn(n, 5) for n in (3, 7, 1)], enforce_sorted=False)]
    if form == "state":
        given.append(pair_of_states(ours, 4)[2])
    results = []
    for layer in (ours, theirs):
        output, states = layer(*given)
        parts = [output.data if form == "packed" else output, *(states if isinstance(states, tuple) else [states])]
        sum(part.square().sum() for part in parts).backward()
        results.append([*parts, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    family=st.sampled_from(FAMILIES),
    setting=st.sampled_from(SETTINGS),
    inputs=st.integers(1, 9),
    units=st.integers(1, 9),
    steps=st.integers(1, 6),
    batch=st.integers(1, 5),
    with_state=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_eval_is_the_formula_bit_for_bit(kind, family, setting, inputs, units, steps, batch, with_state, seed):
    layer = make(kind, family, inputs, units, seed, **setting)
    x = torch.randn(steps, batch, inputs) * 3
    h, c, state = pair_of_states(layer, batch) if with_state else (None, None, None)
    given = x.transpose(0, 1) if layer.batch_first else x
    with torch.no_grad():
        results = [tensors(layer(given, state)), tensors(layer(given.contiguous(), state))]
    results.append([part.detach() for part in tensors(layer(given, state))])  # with gradients: the other path
    for b in range(batch):
        expected = oracle.layers(layer, x[:, b].numpy(), *(None if s is None else s[:, b].numpy() for s in (h, c)))
        for output, *states in results:
            np.testing.assert_array_equal((output[b] if layer.batch_first else output[:, b]).numpy(), expected[0])
            for got, want in zip(states, expected[1:], strict=False):
                np.testing.assert_array_equal(got[:, b].numpy(), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), with_state=st.booleans(), seed=st.integers(0, 2**31))
def test_a_packed_sequence_is_each_sequence_alone(kind, training, lengths, with_state, seed):
    layer = make(kind, FAMILIES[0], seed=seed, num_layers=2, bidirectional=True).train(training)
    sequences = [torch.randn(n, 5) for n in lengths]
    h, c, state = pair_of_states(layer, len(lengths)) if with_state else (None, None, None)
    packed = pack_sequence(sequences, enforce_sorted=False)
    output, *states = tensors(layer(packed, state))
    assert all(a is b for a, b in zip(output[1:], packed[1:], strict=True))
    for b, (sequence, got) in enumerate(zip(sequences, unpack_sequence(output), strict=True)):
        alone = None if h is None else (h[:, b], c[:, b]) if kind == "lstm" else h[:, b]
        expected, *last = tensors(layer(sequence, alone))
        assert torch.equal(got, expected)
        for ours, theirs in zip(states, last, strict=True):
            assert torch.equal(ours[:, b], theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_packed_sequence_are_the_sum_of_those_alone(kind):
    family = ({"name": "linear", "bits": 4}, {"name": "linear", "bits": 4})  # no learned steps, whose gradient depends on the batch's shape
    layer = make(kind, family, bidirectional=True).train().double()
    sequences = [torch.rand(n, 5, dtype=torch.float64) * 2 - 1 for n in (2, 5, 3)]

    def gradients(run):
        layer.zero_grad()
        run()
        return [p.grad.clone() for p in layer.parameters()]

    def alone():
        for sequence in sequences:
            sum(part.square().sum() for part in tensors(layer(sequence))).backward()

    def together():
        output, *states = tensors(layer(pack_sequence(sequences, enforce_sorted=False)))
        (output.data.square().sum() + sum(state.square().sum() for state in states)).backward()

    for a, b in zip(gradients(alone), gradients(together), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_padded_batch_of_sorted_lengths_packs_too():
    layer = make("lstm", FAMILIES[0], batch_first=True)
    x = torch.randn(3, 6, 5)
    packed = pack_padded_sequence(x, torch.tensor([6, 4, 1]), batch_first=True)
    output, lengths = pad_packed_sequence(layer(packed)[0], batch_first=True)
    assert lengths.tolist() == [6, 4, 1]
    assert torch.equal(output[0], layer(x[:1])[0][0])
    assert torch.equal(output[2, :1], layer(x[2:, :1])[0][0])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_eval_does_not_depend_on_batch_or_threads(kind):
    layer = make(kind, FAMILIES[1], 70, 90)
    x = torch.randn(5, 8, 70)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            results.append(layer(x)[0])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)
    assert torch.equal(layer(x[:, 3:5])[0], results[0][:, 3:5])
    assert torch.equal(layer(x[:, 3])[0], results[0][:, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_cells_in_a_loop(kind):
    cell_cls = {"lstm": lnn.LSTMCell, "gru": lnn.GRUCell}.get(kind, lnn.RNNCell)
    layer = make(kind, FAMILIES[0])
    cell = cell_cls(5, 6, weight_quantizer=FAMILIES[0][0], input_quantizer=FAMILIES[0][1], **KINDS[kind][2])
    cell.load_state_dict({name.replace("_l0", ""): value for name, value in layer.state_dict().items()}, strict=True)
    cell.eval()
    x = torch.randn(6, 3, 5)
    expected, last = layer(x)
    state = None
    for t in range(6):
        state = cell(x[t], state)
        assert torch.equal(state[0] if kind == "lstm" else state, expected[t])
    assert torch.equal(state[1] if kind == "lstm" else state, (last[1] if kind == "lstm" else last)[0])
    one = cell(x[0, 0])
    assert torch.equal(one[0] if kind == "lstm" else one, expected[0, 0])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(lnn.LSTMCell, nn.LSTMCell), (lnn.GRUCell, nn.GRUCell), (lnn.RNNCell, nn.RNNCell)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_without_quantizers_is_torchs(ours, theirs, bias):
    a, b = ours(5, 6, bias), theirs(5, 6, bias)
    b.load_state_dict(a.state_dict(), strict=True)
    a.load_state_dict(b.state_dict(), strict=True)
    x = torch.randn(3, 5)
    for got, want in zip(*(layer(x) if ours is lnn.LSTMCell else [layer(x)] for layer in (a, b)), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_a_float_checkpoint_loads_strictly_and_quantizers_start_anew(kind):
    layer = make(kind, FAMILIES[0], num_layers=2, bidirectional=True)
    _, theirs_cls, extra = KINDS[kind]
    theirs = theirs_cls(5, 6, num_layers=2, bidirectional=True, **extra)
    layer.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(layer.weight_hh_l1_reverse, theirs.weight_hh_l1_reverse)
    with pytest.raises(ConfigError, match=r"input_l0 of a"):
        layer(torch.randn(3, 2, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_round(kind):
    layer = make(kind, FAMILIES[0], num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, 5)
    again = KINDS[kind][0](5, 6, 2, bidirectional=True, weight_quantizer=FAMILIES[0][0], input_quantizer=FAMILIES[0][1], **KINDS[kind][2])
    again.load_state_dict(layer.state_dict(), strict=True)
    expected = layer(x)[0]
    for other in (again.eval(), copy.deepcopy(layer)):
        assert torch.equal(other(x)[0], expected)


def test_each_matrix_and_state_has_a_quantizer_of_its_own():
    layer = lnn.LSTM(5, 6, 2, bidirectional=True, weight_quantizer=FAMILIES[0][0], input_quantizer=FAMILIES[0][1])
    assert sorted(layer.weight_quantizers) == sorted(name for name, _ in layer.named_parameters(recurse=False) if name.startswith("weight"))
    assert list(layer.input_quantizers) == ["input_l0", "input_l1"]
    assert list(layer.hidden_quantizers) == ["hidden_l0", "hidden_l0_reverse", "hidden_l1", "hidden_l1_reverse"]
    assert all(q.step.shape == (24, 1) for q in layer.weight_quantizers.values())
    found = [m for m in layer.modules() if isinstance(m, Q.Quantizer)]
    assert len({id(q) for q in found}) == len(found) == 14
    assert layer.input_quantizers["input_l0"].nonnegative is None
    assert layer.input_quantizers["input_l1"].nonnegative is False
    assert "hidden_l1_reverse" in layer.hidden_quantizers["hidden_l1_reverse"].owner


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_hidden_states_are_signed_or_non_negative_as_their_function_is(nonlinearity):
    for family, signed in [(Q.LSQ(3), "signed3"), (Q.DoReFaActivations(3), "signed3"), (Q.CodeDropout(Q.LSQ(3), 0.5), "signed3")]:
        layer = lnn.RNN(5, 6, nonlinearity=nonlinearity, weight_quantizer="sign", input_quantizer=family)
        assert str(layer.hidden_quantizers["hidden_l0"].code_type) == (signed if nonlinearity == "tanh" else "unsigned3")
        assert layer.input_quantizers["input_l0"] is family


def test_a_quantizer_of_hidden_states_may_be_given_or_left_out():
    layer = lnn.GRU(5, 6, weight_quantizer="sign", input_quantizer="sign", hidden_quantizer={"name": "linear", "bits": 5})
    assert layer.hidden_quantizers["hidden_l0"].bits == 5
    assert layer.exact
    in_float = lnn.GRU(5, 6, weight_quantizer="sign", input_quantizer="sign", hidden_quantizer=None)
    assert not in_float.hidden_quantizers
    assert not in_float.exact
    assert in_float(torch.randn(3, 2, 5))[0].shape == (3, 2, 6)


def test_steps_of_hidden_states_start_from_states_of_all_steps():
    torch.manual_seed(0)
    layer = lnn.LSTM(
        5,
        6,
        weight_quantizer=FAMILIES[0][0],
        input_quantizer=FAMILIES[0][1],
        hidden_quantizer={"name": "lsq", "bits": 4, "nonnegative": False},
    )
    in_float = copy.deepcopy(layer)
    in_float.hidden_quantizers.clear()
    x = torch.randn(9, 4, 5)
    states = in_float(x)[0]
    layer(x)
    expected = 2 * states.detach().double().abs().mean() / 7**0.5
    assert layer.hidden_quantizers["hidden_l0"].step.item() == pytest.approx(expected.item(), rel=1e-6)


def test_calibration_starts_every_quantizer_in_eval():
    model = nn.ModuleList([lnn.LSTM(5, 6, 2, bidirectional=True, weight_quantizer=FAMILIES[0][0], input_quantizer=FAMILIES[0][1])]).eval()
    x = torch.randn(4, 3, 5)
    with pytest.raises(ConfigError, match="has not seen data"):
        model[0](x)
    with calibrating(model):
        model[0](x)
    assert all(bool(q.started) for q in [*model[0].input_quantizers.values(), *model[0].hidden_quantizers.values()])
    assert model[0](x)[0].shape == (4, 3, 12)


def test_dropout_acts_between_layers_in_training_only():
    layer = make("lstm", FAMILIES[0], num_layers=2, dropout=0.5)
    x = torch.randn(4, 3, 5)
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])


@torch.no_grad()
def test_kept_weight_codes_follow_every_change_of_the_weights():
    layer = make("gru", FAMILIES[3])
    x = torch.randn(4, 3, 5)
    first = layer(x)[0]
    assert torch.equal(layer(x)[0], first)
    layer.weight_hh_l0.neg_()
    second = layer(x)[0]
    assert not torch.equal(second, first)
    np.testing.assert_array_equal(second[:, 0].numpy(), oracle.layers(layer, x[:, 0].numpy())[0])


def test_weight_codes_are_made_once_in_eval():
    layer = make("lstm", FAMILIES[0])
    calls = []
    layer.weight_quantizers["weight_hh_l0"].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        for _ in range(3):
            layer(torch.randn(4, 3, 5))
    assert len(calls) == 1


def test_nan_stays_nan_in_training_and_is_the_lowest_code_in_eval():
    for kind in KINDS:
        layer = make(kind, FAMILIES[0])
        x = torch.randn(4, 2, 5)
        x[1, 0] = torch.nan
        for learning in (True, False):
            with torch.set_grad_enabled(learning):
                y = layer(x)[0]
                assert torch.isfinite(y).all(), kind
                assert torch.equal(y[:, 1], layer(x[:, 1])[0])
                bad = layer.train()(x)[0]
                assert torch.isnan(bad[1:, 0]).all(), kind
                assert torch.isfinite(bad[:, 1]).all(), kind
            layer.eval()


def test_wrong_use_is_refused_by_name():
    family = {"weight_quantizer": "sign", "input_quantizer": "sign"}
    layer = lnn.LSTM(5, 6, batch_first=True, **family)
    with pytest.raises(ShapeError, match=r"\(B, T, I\).*I = 5, not \(2, 3, 4\)"):
        layer(torch.zeros(2, 3, 4))
    with pytest.raises(ShapeError, match="at least one step"):
        layer(torch.zeros(2, 0, 5))
    with pytest.raises(ShapeError, match=r"pair of states of shape \(1, 2, 6\).*not \(1, 2, 6\)"):
        layer(torch.zeros(2, 3, 5), torch.zeros(1, 2, 6))
    with pytest.raises(ShapeError, match=r"\(1, 3, 6\), \(1, 2, 6\)"):
        layer(torch.zeros(2, 3, 5), (torch.zeros(1, 3, 6), torch.zeros(1, 2, 6)))
    with pytest.raises(ShapeError, match=r"a GRU takes a state of shape \(1, 6\)"):
        lnn.GRU(5, 6, **family)(torch.zeros(3, 5), torch.zeros(6))
    with pytest.raises(ShapeError, match=r"LSTMCell takes \(B, 5\)"):
        lnn.LSTMCell(5, 6, **family)(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"states of shape \(3, 6\)"):
        lnn.GRUCell(5, 6, **family)(torch.zeros(3, 5), torch.zeros(2, 6))
    with pytest.raises(ConfigError, match="proj_size must be 0, not 3"):
        lnn.LSTM(5, 6, proj_size=3, **family)
    assert lnn.LSTM(5, 6, proj_size=3)(torch.zeros(3, 2, 5))[0].shape == (3, 2, 3)
    with pytest.raises(ConfigError, match="'tanh' or 'relu', not 'gelu'"):
        lnn.RNN(5, 6, nonlinearity="gelu")
    with pytest.raises(ConfigError, match="bfloat16"):
        layer.bfloat16()(torch.zeros(2, 3, 5, dtype=torch.bfloat16))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_packed_sequences_of_another_width_are_refused(name):
    layer = getattr(lnn, name)(6, 4, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 4})
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 5), torch.randn(2, 5)])
    with pytest.raises(ShapeError, match=r"takes packed sequences of 6 inputs a step, not of \(5,\)"):
        layer(packed)
