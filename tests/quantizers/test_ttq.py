"""TTQ: the gradients of its two scales, where they start, and a layer's two exact sums in eval, in training and in a file."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.errors import ConfigError
from lobit.report.cost import cost_of
from lobit.report.floatnet import float_net
from lobit.runtime import Session, isas
from tests.quantizers.oracles.ttq import codes_of

LSQ4 = {"name": "lsq", "bits": 4}
PER_CHANNEL = {"name": "ttq", "per_channel": True}


def moved(quantizer, seed=0):
    """Scales that training has moved apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        quantizer.started.fill_(True)
        quantizer.positive.copy_(torch.rand(quantizer.positive.shape, generator=generator) + 0.5)
        quantizer.negative.copy_(torch.rand(quantizer.negative.shape, generator=generator) + 0.1)
    quantizer._running = True


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_are_those_of_equations_7_and_8(per_channel):
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=(5, 40)).astype(np.float32), rng.normal(size=(5, 40))
    quantizer = Q.TTQWeights(threshold=0.2, per_channel=per_channel)
    quantizer.attach(torch.tensor(w))
    moved(quantizer)
    t = torch.tensor(w, requires_grad=True)
    (quantizer(t).values() * torch.tensor(g, dtype=torch.float32)).sum().backward()
    codes, axes = codes_of(quantizer, w), {"axis": 1, "keepdims": True} if per_channel else {}
    positive, negative = (p.detach().double().numpy() for p in (quantizer.positive, quantizer.negative))
    np.testing.assert_allclose(quantizer.positive.grad, (g * (codes == 1)).sum(**axes), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(quantizer.negative.grad, -(g * (codes == -1)).sum(**axes), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(t.grad, g * np.where(codes == 1, positive, np.where(codes == -1, negative, 1.0)), rtol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("how", ["training", "calibration"])
def test_scales_start_as_the_mean_magnitudes_of_their_side(per_channel, how):
    torch.manual_seed(0)
    layer = lnn.Linear(30, 4, weight_quantizer={"name": "ttq", "per_channel": per_channel}, input_quantizer="sign")
    with torch.no_grad():
        layer.weight[2] = layer.weight[2].abs()  # a channel without negative weights
    x, quantizer = torch.randn(3, 30), layer.weight_quantizer
    in_eval = copy.deepcopy(layer).eval().quantized_weight()
    layer(x) if how == "training" else lobit.calibrate(layer, x)
    w = layer.weight.detach().double().numpy()
    codes, axis = codes_of(quantizer, w), 1 if per_channel else None
    means = []
    for side in (codes > 0, codes < 0):
        with np.errstate(invalid="ignore"):
            means.append((np.abs(w) * side).sum(axis) / side.sum(axis))
    means[1] = np.where(np.isnan(means[1]), means[0], means[1])
    for found, followed, mean in zip((quantizer.positive, quantizer.negative), (in_eval.scale, in_eval.negative), means, strict=True):
        np.testing.assert_allclose(found.detach().flatten(), np.atleast_1d(mean), rtol=1e-6)
        torch.testing.assert_close(followed, found.detach(), rtol=0, atol=0)


def test_scales_at_or_below_zero_mean_the_same_in_eval_as_in_training():
    layer = lnn.Linear(6, 2, weight_quantizer="ttq", input_quantizer="sign")
    x = torch.randn(3, 6)
    layer(x)
    with torch.no_grad():
        layer.weight_quantizer.negative.fill_(-1.0)
    in_eval = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), in_eval)
    lobit.optim.clip_latent_weights(layer)
    assert layer.weight_quantizer.negative > 0


def test_a_scale_that_is_not_finite_is_refused_by_name():
    layer = lnn.Linear(6, 2, weight_quantizer="ttq", input_quantizer="sign")
    layer(torch.randn(3, 6))
    with torch.no_grad():
        layer.weight_quantizer.positive.fill_(torch.nan)
    with pytest.raises(ConfigError, match=r"learned scale of a Linear with weights of shape \(2, 6\) is nan"):
        layer.eval()(torch.randn(3, 6))


def expected(layer, x):
    """Two sums in 64-bit integers, each times its scale in float32; then the offset's, then the bias."""
    inputs, quantizer = layer.input_quantizer, layer.weight_quantizer
    q = inputs(x)
    codes = torch.tensor(codes_of(quantizer, layer.weight.detach().numpy().reshape(len(layer.weight), -1))).reshape(layer.weight.shape)
    channels = (-1, 1, 1) if x.ndim == 4 else (-1,)

    def part(a, side):
        sums = layer.product(a.double(), (codes == side).double()).numpy()
        assert np.array_equal(sums, np.rint(sums))
        scale = quantizer.positive if side == 1 else -quantizer.negative
        return sums.astype(np.float32) * (given_scale * scale.detach().numpy().reshape(-1)).astype(np.float32).reshape(channels)

    given_scale = q.scale.detach().numpy()
    y = part(q.centred().detach(), 1) + part(q.centred().detach(), -1)
    if q.offset is not None:
        given_scale = q.offset.detach().numpy()
        ones = torch.ones_like(x)
        y = y + (part(ones, 1) + part(ones, -1))
    return y if layer.bias is None else y + layer.bias.detach().numpy().reshape(channels)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    inputs=st.sampled_from([LSQ4, "sign", "heaviside", {"name": "affine", "bits": 3}, {"name": "lsq_plus", "bits": 2}]),
    per_channel=st.booleans(),
    groups=st.sampled_from([1, 2]),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_convolution_is_two_exact_sums_in_eval_and_packed(inputs, per_channel, groups, padding, bias, seed):
    torch.manual_seed(seed)
    layer = lnn.Conv2d(
        6, 4 * groups, 3, 1, padding, 1, groups, bias, weight_quantizer={"name": "ttq", "per_channel": per_channel}, input_quantizer=inputs
    )
    x = torch.randn(3, 6, 7, 8)
    layer(x)
    moved(layer.weight_quantizer, seed)
    model = nn.Sequential(layer).eval()
    with torch.no_grad():
        wanted = expected(layer, x)
        np.testing.assert_array_equal(model(x).numpy(), wanted)
    graph = capture(model, (x,)).graph
    for isa in isas():
        np.testing.assert_array_equal(Session(graph, isa=isa, threads=1)(x.numpy()), wanted)
    assert verify(model, Session(graph), x).ok


@pytest.mark.parametrize("policy", ["ttq", PER_CHANNEL])
@pytest.mark.parametrize("gradient", [None, "dorefa"])
def test_training_computes_what_eval_does_and_learns_both_scales(policy, gradient):
    """By one product, fused or plain: on the large input the native loops run."""
    torch.manual_seed(2)
    layer = lnn.Conv2d(8, 16, 3, padding=1, weight_quantizer=policy, input_quantizer=LSQ4)
    x = torch.randn(4, 8, 16, 16)
    layer(x)
    moved(layer.weight_quantizer)
    if gradient:
        layer.gradient_quantizer = Q.get({"name": gradient, "bits": 8}, "gradients")
    trained, in_eval = layer(x), copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(trained, in_eval, rtol=1e-4, atol=1e-4)
    trained.square().sum().backward()
    found = {name: parameter.grad for name, parameter in layer.named_parameters()}
    plain = copy.deepcopy(layer).eval()
    plain.zero_grad()
    plain.gradient_quantizer = None
    plain(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        if name.startswith("input") or gradient is None:
            assert found[name].abs().sum() > 0
        if gradient is None and not name.startswith("input"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=2e-3, atol=1e-3 * float(parameter.grad.abs().max()))


def test_a_compiled_layer_gives_the_same_in_one_graph():
    torch.manual_seed(3)
    layer = lnn.Linear(24, 8, weight_quantizer=PER_CHANNEL, input_quantizer=LSQ4)
    x = torch.randn(16, 24)
    layer(x)
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    results = []
    for module in (layer, compiled):
        module.zero_grad()
        y = module(x)
        y.square().sum().backward()
        results.append([y, *(parameter.grad for parameter in module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_what_training_keeps_of_the_input_is_a_byte_a_value():
    layer = lnn.Conv2d(16, 16, 3, padding=1, weight_quantizer="ttq", input_quantizer={"name": "linear", "bits": 4})
    x, kept = torch.randn(8, 16, 16, 16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert max(t.numel() * t.element_size() for t in kept if t.numel() >= x.numel()) == x.numel()


def test_rows_of_an_embedding_are_its_values():
    torch.manual_seed(4)
    table = lnn.Embedding(7, 5, weight_quantizer=PER_CHANNEL)
    index = torch.tensor([[0, 6], [3, 3]])
    table(index).sum().backward()
    moved(table.weight_quantizer)
    q = table.eval().quantized_weight()
    torch.testing.assert_close(table(index), q.values()[index], rtol=0, atol=0)
    assert set(q.values().unique().tolist()) <= {0.0, *q.scale.flatten().tolist(), *(-q.negative).flatten().tolist()}


@pytest.mark.parametrize(
    ("make", "name"), [(lambda **q: lnn.LSTM(4, 3, **q), "weight_ih_l0"), (lambda **q: lnn.MultiheadAttention(4, 2, **q), "in_proj_weight")]
)
def test_layers_of_several_products_refuse_two_scales_by_name(make, name):
    with pytest.raises(ConfigError, match=f"quantizer 'ttq' has a scale for each side of 0, and {name} of .*take 'ternary'"):
        make(weight_quantizer="ttq", input_quantizer=LSQ4)


@pytest.mark.parametrize(
    ("make", "words"), [(lambda: Q.TTQWeights(3), "2 bits, not 3"), (lambda: Q.TTQWeights(threshold=1), "to less than 1 largest")]
)
def test_settings_that_are_none_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_file_holds_one_bit_for_each_side_and_counts_as_one_ternary_layer(tmp_path):
    torch.manual_seed(5)
    layers = [lnn.Linear(128, 64, weight_quantizer=name, input_quantizer=LSQ4) for name in ("ttq", "ternary")]
    x = torch.randn(4, 128)
    costs = []
    for layer in layers:
        model = nn.Sequential(layer)
        model(x)
        report = export(model.eval(), x, tmp_path / "net.lobit", strict=True)
        costs.append(cost_of(capture(model, (x,)).graph))
        assert [(row.name, row.bits, row.weight_bytes, row.float_bytes) for row in report.layers] == [
            ("0", "W2A4", 2 * 128 * 64 // 8, 4 * 128 * 64)
        ]
    ours, ternary = costs
    for name in ("parameters", "weight_bytes", "float_bytes", "macs_by_width", "bit_operations_by_width"):
        assert getattr(ours, name) == getattr(ternary, name)
    assert ours.as_float().bit_operations == ternary.as_float().bit_operations
    graph = capture(nn.Sequential(layers[0]).eval(), (x,)).graph
    (product,) = [op for op in float_net(graph).ops if op.op == "linear"]
    step = layers[0].input_quantizer.step.item()
    wanted = (
        layers[0].quantized_weight().values().detach().numpy() * step
    )  # the step of the input is in the weights, or in an operation of its own
    ratio = product.arrays["weight"][wanted != 0] / wanted[wanted != 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert [op.op for op in float_net(graph).ops].count("add") == 0
