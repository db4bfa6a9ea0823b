"""Linear layers with a scale for each group of inputs: values, eval in one order, what is refused, and policies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError, ExportError
from lobit.training import QuantizationSchedule

LSQ = {"name": "lsq", "bits": 4, "group": 16}
INPUTS = [{"name": "lsq", "bits": 4}, {"name": "lsq_plus", "bits": 4}, {"name": "affine", "bits": 8}]


def layer(columns=40, weights=LSQ, inputs=None, outputs=6):
    torch.manual_seed(0)
    return lnn.Linear(columns, outputs, weight_quantizer=weights, input_quantizer=inputs)


def scale_of(made, output, column, group=16):
    """The state of one group, found by counting."""
    inner = made.weight_quantizer.quantizer
    whole = made.in_features // group
    if column // group < whole:
        return inner.step[output * whole + column // group].item()
    return made.weight_quantizer.rest.step[output].item()


def test_every_group_has_the_scale_of_its_own_weights():
    made = layer()
    made(torch.randn(3, 40))
    quantized = made.weight_quantizer(made.weight)
    for output in range(6):
        for start, end in ((0, 16), (16, 32), (32, 40)):
            own = made.weight[output, start:end].abs().double().mean().item()
            assert scale_of(made, output, start) == pytest.approx(2 * own / 7**0.5, rel=1e-6)
            assert (quantized.scale[output, start:end] == scale_of(made, output, start)).all()


@pytest.mark.parametrize("columns", [16, 32, 40, 10])
@pytest.mark.parametrize("inputs", INPUTS, ids=lambda inputs: inputs["name"])
def test_eval_adds_exact_sums_of_groups_in_rising_order(columns, inputs):
    made, x = layer(columns, inputs=inputs), torch.randn(9, columns)
    made(x)
    made.eval()
    with torch.no_grad():
        given, weight = made.input_quantizer(x), made.weight_quantizer(made.weight)
        y = made(x)
    codes, w = (given.codes - given.zero).numpy().astype(np.int64), weight.codes.numpy().astype(np.int64)
    total = None
    for start in range(0, columns, 16):
        part = slice(start, start + 16)
        own = weight.scale[:, start].numpy()
        terms = [(codes[:, part] @ w[:, part].T).astype(np.float32) * (given.scale.numpy() * own)]
        if given.offset is not None:
            terms.append(w[:, part].sum(1).astype(np.float32) * (given.offset.numpy() * own))
        for term in terms:
            total = term if total is None else total + term
    np.testing.assert_array_equal(y.numpy(), total + made.bias.detach().numpy())


@pytest.mark.parametrize("inputs", [None, *INPUTS], ids=str)
def test_training_multiplies_values_and_eval_gives_the_same(inputs):
    made, x = layer(inputs=inputs), torch.randn(9, 40, requires_grad=True)
    made(x)
    y = made(x)
    y.square().sum().backward()
    values = x if inputs is None else made.input_quantizer(x).values()
    wanted = F.linear(values, made.weight_quantizer(made.weight).values(), made.bias)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(made.eval()(x), wanted)
    for parameter in made.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_one_group_for_all_inputs_is_a_scale_for_each_output():
    grouped, plain, x = layer(16, inputs=INPUTS[0]), layer(16, {"name": "lsq", "bits": 4}, INPUTS[0]), torch.randn(9, 16)
    torch.testing.assert_close(grouped(x), plain(x))
    assert torch.equal(grouped.eval()(x), plain.eval()(x))


def test_groups_follow_weights_better_than_outputs_do():
    torch.manual_seed(0)
    w = torch.randn(8, 128) * torch.logspace(-1, 1, 128)
    errors = []
    for settings in ({}, {"group": 32}):
        quantizer = Q.get({"name": "lsq", "bits": 4, **settings}, "weights")
        quantizer.attach(w)
        errors.append((quantizer.eval()(w).values() - w).square().sum().item())
    assert errors[1] < errors[0] / 2


def test_calibration_chooses_for_each_group():
    made, x = layer(inputs=INPUTS[0]), torch.randn(20, 40)
    net = nn.Sequential(made)
    Q.calibrate(net, x, weights="min-max")
    for output in range(6):
        own = made.weight[output, 16:32]
        wanted = max(own.max().item() / 7, own.min().item() / -8)
        assert scale_of(made, output, 16) == pytest.approx(wanted, rel=1e-6)


def test_widths_state_and_floats_are_those_of_the_quantizer():
    made, x = layer(inputs=INPUTS[0]), torch.randn(9, 40)
    made(x)
    fresh = layer(inputs=INPUTS[0])
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh.eval()(x), made.eval()(x))
    quantizer = made.weight_quantizer
    quantizer.set_bits(2)
    assert str(quantizer.code_type) == "signed2"
    assert not quantizer.quantizer.started
    assert not quantizer.rest.started
    schedule = QuantizationSchedule(nn.Sequential(made.train()), {1: "float", 2: "W8A8"})
    schedule.advance(0)
    torch.testing.assert_close(made(x), nn.Linear.forward(made, x))
    schedule.advance(1)
    assert made.weight_quantizer.bits == 8


def test_gradients_of_sums_may_be_quantized_too():
    made = lnn.Linear(40, 6, weight_quantizer=LSQ, input_quantizer=INPUTS[0], gradient_quantizer={"name": "dorefa", "bits": 6})
    made(torch.randn(9, 40)).square().sum().backward()
    assert made.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("group", [1, 0, -4, 2.0, True, "64"])
def test_a_group_is_a_whole_number_from_two(group):
    with pytest.raises(ConfigError, match="a group of weights is a whole number of inputs from 2"):
        Q.get({"name": "lsq", "bits": 4, "group": group}, "weights")


@pytest.mark.parametrize(
    ("name", "bits", "settings"), [("linear", 4, {}), ("dorefa", 2, {}), ("ternary", 2, {"per_channel": False}), ("learned_bits", 4, {})]
)
def test_a_quantizer_with_one_scale_is_refused(name, bits, settings):
    with pytest.raises(ConfigError, match=f"quantizer '{name}' of these settings has one scale for all weights"):
        layer(weights={"name": name, "bits": bits, "group": 16, **settings})


def test_a_scale_for_each_side_of_zero_is_refused():
    with pytest.raises(ConfigError, match="quantizer 'ttq' of these settings has more than one scale for a weight"):
        layer(weights={"name": "ttq", "group": 16})


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_compiles_whole(mode):
    made, x = layer(inputs=INPUTS[0]), torch.randn(9, 40)
    made(x)
    getattr(made, mode)()
    wanted = made(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(made, backend="aot_eager", fullgraph=True)(x), wanted)


def test_other_layers_and_roles_are_refused_by_name():
    for make in (lambda: lnn.Conv2d(4, 4, 3, weight_quantizer=LSQ), lambda: lnn.Embedding(9, 32, weight_quantizer=LSQ)):
        with pytest.raises(
            ConfigError, match=r"scales for groups of inputs \(group=16\) are for linear layers, not for a (Conv2d|Embedding)"
        ):
            make()
    with pytest.raises(ConfigError, match="not for a LSTM of 8 units"):
        lnn.LSTM(4, 8, weight_quantizer=LSQ)
    with pytest.raises(ConfigError, match="does not take"):
        Q.get({"name": "lsq", "bits": 4, "group": 16}, "activations")


@pytest.mark.parametrize("form", ["mapping", "file"])
def test_policies_name_the_group(form, tmp_path):
    net = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10))
    policy = {"bits": "W4A8", "weights": {"name": "lsq", "group": 16}}
    if form == "file":
        (tmp_path / "policy.yaml").write_text("bits: W4A8\nweights: {name: lsq, group: 16}\nfirst: null\n")
        policy = tmp_path / "policy.yaml"
    lobit.quantize_(net, policy, first=None)
    assert isinstance(net[0].weight_quantizer, Q.GroupedWeights)
    assert net[0].weight_quantizer.group == 16
    assert str(net[0].weight_quantizer.code_type) == "signed4"
    assert not isinstance(net[2].weight_quantizer, Q.GroupedWeights)


def test_a_policy_that_groups_a_convolution_names_the_layer():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(ConfigError, match="layer '0'.*linear layers, not for a Conv2d"):
        lobit.quantize_(net, {"bits": "W4A8", "weights": {"name": "lsq", "group": 16}}, first=None)


def test_export_refuses_by_name(tmp_path):
    net, x = nn.Sequential(layer(inputs=INPUTS[0])), torch.randn(9, 40)
    net(x)
    with pytest.raises(ExportError, match=r"layer '0' \(Linear\) has scales for groups of 16 inputs"):
        lobit.export(net.eval(), x, tmp_path / "net.lobit")


@pytest.mark.parametrize("following", [False, True])
def test_the_summary_counts_codes_and_scales(following):
    torch.manual_seed(0)
    after = [nn.ReLU(), lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer="sign")] if following else []
    net, x = nn.Sequential(layer(inputs=INPUTS[0]), *after), torch.randn(9, 40)
    net(x)
    summary = lobit.summary(net, x)
    counted = next(entry for entry in summary.cost.layers if entry.bits == "W4A4")
    assert counted.weight_bytes == 6 * 8 * 4  # a word for each output and bit
    assert counted.constant_bytes == 4 * 6 * 2  # a float for each output and group but the first
    if not following:
        assert summary.cost.constant_bytes == 4 * (6 * 3 + 6 + 1)  # scales, biases, the input's step
    assert counted.macs == 240
    assert "scales for groups" in str(summary)
    assert isinstance(net[0].weight_quantizer, Q.GroupedWeights)
