"""Learned real offsets and integer zero points: eval's numbers against the formula in 64-bit integers, and the packed network against eval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.runtime import Session, isas, load
from tests.targets.machine import Program, need

LSQ4 = {"name": "lsq", "bits": 4}


def started(quantizer, low, high):
    """A quantizer of this range."""
    quantizer.settle(Q.Sample.of_rows(torch.tensor([[low, high]])), Q.MinMax())
    return quantizer.eval()


def expected(layer, x):
    """``sum * (scale_x scale_w) + ones_sum * (offset scale_w) + bias``: sums in 64-bit integers, each float operation rounded once."""
    q, w = layer.input_quantizer, layer.weight_quantizer(layer.weight)
    code, channels = q.code_type, (-1, 1, 1) if x.ndim == 4 else (-1,)
    scale = (q.step if isinstance(q, Q.LSQPlus) else q.scale).detach().numpy()
    v = x.numpy() / scale
    if isinstance(q, Q.LSQPlus):
        v = v - q.offset.detach().numpy() / scale
    centred = np.clip(np.rint(v), code.lo - q.zero, code.hi - q.zero)

    def sums(a):
        y = layer.product(torch.from_numpy(a.astype(np.float64)), w.codes.detach().double()).numpy()
        assert np.array_equal(y, np.rint(y))
        return y.astype(np.float32)

    scales = w.scale.detach().numpy().reshape(-1)
    y = sums(centred) * (scale * scales).reshape(channels)
    if isinstance(q, Q.LSQPlus):
        y = y + sums(np.ones_like(centred)) * (q.offset.detach().numpy() * scales).reshape(channels)
    return y if layer.bias is None else y + layer.bias.detach().numpy().reshape(channels)


INPUTS = st.sampled_from(
    [{"name": "lsq_plus", "bits": bits} for bits in (1, 2, 4, 8)]
    + [{"name": "affine", "bits": bits} for bits in (1, 3, 8)]
    + [{"name": "affine", "bits": bits, "signed": True} for bits in (2, 8)]
)
WEIGHTS = st.sampled_from(
    [LSQ4, {"name": "lsq", "bits": 8}, "magnitude_sign", "sign", {"name": "affine", "bits": 3}]
    + [{"name": "affine", "bits": bits, "symmetric": False} for bits in (1, 4, 7)]
    + [{"name": "affine", "bits": 5, "symmetric": False, "per_channel": False}]
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    inputs=INPUTS,
    weights=WEIGHTS,
    low=st.floats(-4, 0.5),
    groups=st.sampled_from([1, 2, 3]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_convolution_equals_its_integer_sums_in_eval_and_packed(
    inputs, weights, low, groups, kernel, stride, padding, dilation, bias, seed
):
    torch.manual_seed(seed)
    layer = lnn.Conv2d(6, 5 * groups, kernel, stride, padding, dilation, groups, bias, weight_quantizer=weights, input_quantizer=inputs)
    started(layer.input_quantizer, low, low + 3.0)
    model = nn.Sequential(layer).eval()
    x = torch.randn(3, 6, 7, 9) * 2
    with torch.no_grad():
        wanted = expected(layer, x)
        np.testing.assert_array_equal(model(x).numpy(), wanted)
    graph = capture(model, (x,)).graph
    for isa in isas():
        session = Session(graph, isa=isa, threads=1)
        np.testing.assert_array_equal(session(x.numpy()), wanted)
    assert verify(model, session, x).ok


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_adds_the_offset_as_a_constant(bits, bias, tmp_path):
    torch.manual_seed(bits)
    layer = lnn.Linear(33, 7, bias, weight_quantizer=LSQ4, input_quantizer={"name": "lsq_plus", "bits": bits})
    started(layer.input_quantizer, -0.3, 2.0)
    model = nn.Sequential(layer).eval()
    x = torch.randn(5, 33)
    with torch.no_grad():
        np.testing.assert_array_equal(model(x).numpy(), expected(layer, x))
    export(model, x, tmp_path / "net.lobit", strict=True)
    session = load(tmp_path / "net.lobit")
    assert [node.op for node in session.graph.nodes].count("linear") == 1
    np.testing.assert_array_equal(session(x.numpy()), model(x).detach().numpy())


def test_the_second_product_is_there_only_where_the_convolution_pads_and_shares_its_weights():
    torch.manual_seed(0)
    plus = {"name": "lsq_plus", "bits": 4}
    model = nn.Sequential(
        lnn.Conv2d(3, 8, 3, weight_quantizer=LSQ4, input_quantizer=plus),
        lnn.Conv2d(8, 8, 3, padding=1, weight_quantizer=LSQ4, input_quantizer=plus),
    )
    x = torch.randn(2, 3, 8, 8)
    model(x)
    graph = capture(model.eval(), (x,)).graph
    products = [node for node in graph.nodes if node.op == "conv2d"]
    assert [node.name for node in products] == ["0", "1", "1.border"]
    assert products[1].constants["weight"] == products[2].constants["weight"]


def deep_net(plus=4):
    """Offsets in layers that follow each other, with pools, batch norms and a residual in between."""
    torch.manual_seed(1)
    inputs = {"name": "lsq_plus", "bits": plus}
    return nn.Sequential(
        lnn.Conv2d(3, 12, 3, padding=1, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer={"name": "affine", "bits": 8}),
        lnn.BatchNorm2d(12),
        nn.MaxPool2d(2),
        lnn.Conv2d(12, 12, 3, 1, 1, 1, 12, False, weight_quantizer=LSQ4, input_quantizer=inputs),
        lnn.BatchNorm2d(12),
        nn.Hardtanh(),
        lnn.Conv2d(12, 20, (1, 2), 1, (0, 1), weight_quantizer={"name": "affine", "bits": 4, "symmetric": False}, input_quantizer=inputs),
        lnn.AvgPool2d(2),
        nn.Flatten(),
        lnn.Linear(20, 9, weight_quantizer="magnitude_sign", input_quantizer=inputs),
        nn.ReLU(),
        lnn.Linear(9, 4, weight_quantizer=LSQ4, input_quantizer={"name": "pact", "bits": 3}),
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_net_of_offsets_exports_and_its_file_gives_the_same_codes(bits, tmp_path):
    model = deep_net(bits)
    Q.calibrate(model, torch.randn(64, 3, 6, 4))
    x = torch.randn(32, 3, 6, 4)
    report = export(model.eval(), x, tmp_path / "net.lobit", strict=True)
    assert report.verification.ok
    assert report.verification.equal == report.verification.compared
    fresh = torch.randn(100, 3, 6, 4) * 2
    assert verify(model, tmp_path / "net.lobit", fresh).ok
    np.testing.assert_array_equal(load(tmp_path / "net.lobit")(fresh.numpy()), model(fresh).detach().numpy())


def test_a_float_product_behind_an_offset_or_a_zero_runs_on_their_values(tmp_path):
    for inputs in ({"name": "lsq_plus", "bits": 4}, {"name": "affine", "bits": 4}):
        torch.manual_seed(2)
        layer = lnn.Conv2d(3, 4, 3, padding=1, input_quantizer=inputs)
        started(layer.input_quantizer, -0.7, 2.1)
        x = torch.randn(4, 3, 5, 5)
        model = nn.Sequential(layer).eval()
        values = layer.input_quantizer(x).values()
        torch.testing.assert_close(model(x), F.conv2d(values, layer.weight, layer.bias, padding=1))
        assert export(model, x, tmp_path / "net.lobit").verification.ok


def test_sums_beyond_two_to_the_24_stay_exact_with_a_zero_point():
    torch.manual_seed(3)
    layer = lnn.Linear(700, 3, weight_quantizer={"name": "affine", "bits": 8}, input_quantizer={"name": "affine", "bits": 8})
    started(layer.input_quantizer, -2.0, 1e-3)  # zero is 255: codes less their zero reach -255
    assert layer.input_quantizer.zero == 255
    assert layer.accumulator_bound == 700 * 255 * 128 > 2**24
    with torch.no_grad():
        layer.weight.copy_(torch.randint(100, 128, layer.weight.shape))
    x = -torch.rand(8, 700) - 1
    model = nn.Sequential(layer).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(model(x).numpy(), expected(layer, x))
    assert verify(model, Session(capture(model, (x,)).graph), x).ok


def test_exported_c_has_the_numbers_of_a_net_of_offsets(tmp_path):
    need("gcc")
    model = deep_net()
    Q.calibrate(model, torch.randn(64, 3, 6, 4))
    x = torch.randn(4, 3, 6, 4)
    (y,) = Program(tmp_path, [capture(model.eval(), (x,)).graph])(0, x.numpy())
    np.testing.assert_array_equal(y, model(x).detach().numpy())
