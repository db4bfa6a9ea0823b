"""The exact class: eval's floats follow from integer sums by the stated operations, whatever the shape, layout, batch or CPU path."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import nn as lnn
from lobit.errors import ConfigError

FAMILIES = [
    ({"name": "sign"}, {"name": "sign"}),
    ({"name": "magnitude_sign"}, {"name": "lsq", "bits": 1}),
    ({"name": "lsq", "bits": 2}, {"name": "lsq", "bits": 3}),
    ({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8}),
    ({"name": "dorefa", "bits": 3}, {"name": "dorefa", "bits": 2}),
    ({"name": "dorefa", "bits": 8}, {"name": "linear", "bits": 8}),
    ({"name": "linear", "bits": 4}, {"name": "stochastic_sign"}),
]


def expected_output(layer, x):
    """Integer sums in float64, far below 2^53; rounded to float32, times scale, plus bias."""
    q, w = layer.input_quantizer(x), layer.weight_quantizer(layer.weight)
    sums = layer.product(q.codes.double() - q.zero, w.codes.double())
    assert torch.equal(sums, sums.round())
    assert sums.abs().max() <= layer.accumulator_bound
    scale = (q.scale * w.scale).flatten().numpy()
    over = (slice(None), None, None) if x.ndim == 4 else (slice(None),)
    scaled = sums.numpy().astype(np.float32) * (scale[over] if scale.size > 1 else scale)
    return scaled if layer.bias is None else scaled + layer.bias.numpy()[over]


@settings(max_examples=60)
@given(
    family=st.sampled_from(FAMILIES),
    groups=st.sampled_from([1, 2, 3]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_convolution_is_its_integer_sum_times_scale_plus_bias(family, groups, kernel, stride, padding, dilation, bias, seed):
    torch.manual_seed(seed)
    weights, inputs = family
    layer = lnn.Conv2d(6, 3 * groups, kernel, stride, padding, dilation, groups, bias, weight_quantizer=weights, input_quantizer=inputs)
    x = torch.randn(3, 6, 7, 9)
    layer(x)
    layer.eval()
    with torch.no_grad():
        expected = expected_output(layer, x)
        for image in (x, x.to(memory_format=torch.channels_last)):
            np.testing.assert_array_equal(layer(image).numpy(), expected)
        np.testing.assert_array_equal(layer(x[1:2]).numpy(), expected[1:2])
        assert layer(x[:0]).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("channels", [57, 58, 300])
def test_wide_convolutions_pass_two_to_the_24(channels):
    """W8A8, 3x3: the bound passes 2^24 from 58 channels, 519 inputs and more; sums in float32 would round."""
    torch.manual_seed(channels)
    layer = lnn.Conv2d(channels, 4, 3, weight_quantizer={"name": "lsq", "bits": 8}, input_quantizer={"name": "lsq", "bits": 8})
    x = 200 + torch.randint(0, 56, (2, channels, 4, 4)).float()  # the codes themselves, where steps are 1
    layer(x)
    with torch.no_grad():
        layer.weight.copy_(-torch.randint(100, 129, layer.weight.shape).float())
        layer.weight_quantizer.step.fill_(1)
        layer.input_quantizer.step.fill_(1)
        layer.eval()
        assert layer.accumulator_bound == 9 * channels * 255 * 128
        assert (layer.accumulator_bound > 2**24) == (channels > 57)
        expected = expected_output(layer, x)
        np.testing.assert_array_equal(layer(x).numpy(), expected)
        in_float32 = layer.product(layer.input_quantizer(x).codes, layer.weight_quantizer(layer.weight).codes) + layer.bias.reshape(
            -1, 1, 1
        )
        assert (channels == 300) == bool((in_float32.numpy() != expected).any())


@pytest.mark.parametrize(("weights", "inputs"), [({"name": "lsq", "bits": 3}, None), (None, {"name": "lsq", "bits": 3})])
def test_a_layer_with_one_quantizer_is_a_float_product_of_values_and_says_so(weights, inputs):
    torch.manual_seed(0)
    layer = lnn.Conv2d(3, 4, 3, padding=1, weight_quantizer=weights, input_quantizer=inputs)
    x = torch.randn(2, 3, 5, 5)
    layer(x)
    layer.eval()
    assert not layer.exact
    values = x if inputs is None else layer.input_quantizer(x).values()
    kernel = layer.weight if weights is None else layer.weight_quantizer(layer.weight).values()
    torch.testing.assert_close(layer(x), F.conv2d(values, kernel, layer.bias, padding=1), rtol=1e-5, atol=1e-6)


def test_the_bound_of_an_undecided_input_is_refused():
    layer = lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer={"name": "lsq", "bits": 2})
    with pytest.raises(ConfigError, match="undecided"):
        _ = layer.accumulator_bound


@pytest.mark.parametrize("family", FAMILIES[:6])
@pytest.mark.parametrize("bias", [True, False])
def test_a_quantized_layer_trains_as_the_float_layer_of_its_values(family, bias):
    """Codes first changes no gradient: it equals that of the float layer on scale * codes, for both quantizers."""
    torch.manual_seed(5)
    layer = lnn.Conv2d(4, 6, 3, padding=1, groups=2, bias=bias, weight_quantizer=family[0], input_quantizer=family[1])
    x = torch.randn(2, 4, 5, 5)
    layer(x)
    results = []
    for product in (layer, partial(_fake, layer)):
        layer.zero_grad()
        v = x.clone().requires_grad_()
        product(v).square().mean().backward()
        results.append([v.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) >= 2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def _fake(layer, x):
    values, weight = layer.input_quantizer(x).values(), layer.weight_quantizer(layer.weight).values()
    return F.conv2d(values, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def exact_nets(**quantizers):
    """Small nets of all exact layers, with the shapes of their inputs."""
    yield (
        (5, 9, 9),
        torch.nn.Sequential(
            lnn.Conv2d(5, 16, 3, padding=1, **quantizers),
            lnn.BatchNorm2d(16),
            lnn.AvgPool2d(3, 2, 1),
            torch.nn.ReLU(),
            lnn.Conv2d(16, 70, 3, **quantizers),
            lnn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            lnn.Linear(70, 11, **quantizers),
        ),
    )
    yield (
        (5, 9),
        torch.nn.Sequential(
            lnn.Conv1d(5, 16, 3, padding=1, **quantizers),
            lnn.BatchNorm1d(16),
            lnn.RPReLU(16),
            lnn.AvgPool1d(3, 2, 1),
            lnn.ConvTranspose1d(16, 6, 3, 2, groups=2, **quantizers),
            lnn.PReLU(),
            lnn.Conv1d(6, 70, 2, groups=2, **quantizers),
            lnn.AdaptiveAvgPool1d(2),
        ),
    )
    yield (
        (5, 4, 6, 5),
        torch.nn.Sequential(
            lnn.Conv3d(5, 16, 3, padding=1, **quantizers),
            lnn.BatchNorm3d(16),
            lnn.AvgPool3d(3, 2, 1),
            lnn.ConvTranspose3d(16, 4, 3, 2, **quantizers),
            lnn.AdaptiveAvgPool3d(1),
        ),
    )
    yield (5, 4, 6), torch.nn.Sequential(lnn.ConvTranspose2d(5, 9, 3, 2, **quantizers), lnn.GlobalAvgPool2d())


def digest() -> str:
    """All bits that small nets of every exact layer give in eval, in both layouts."""
    torch.manual_seed(0)
    sha = hashlib.sha256()
    nets = [each for weights, inputs in FAMILIES for each in exact_nets(weight_quantizer=weights, input_quantizer=inputs)]
    for shape, net in nets:
        rng = np.random.default_rng(1)
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                if tensor.ndim and tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(rng.uniform(0.1, 1, tuple(tensor.shape)).astype(np.float32)))
            x = torch.from_numpy(rng.normal(size=(4, *shape)).astype(np.float32))
            for layer in net:  # steps set by hand: training's float statistics are no part of the promise
                for quantizer in (getattr(layer, "weight_quantizer", None), getattr(layer, "input_quantizer", None)):
                    if hasattr(quantizer, "step") and hasattr(quantizer, "started"):
                        state = quantizer.state_dict()
                        state["started"].fill_(True)
                        state["step"].fill_(0.0625 + 0.01)
                        if "sign_of_input" in state:
                            state["sign_of_input"].fill_(0)
                        quantizer.load_state_dict(state)
            net.eval()
            layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
            for layout in (torch.contiguous_format, layouts.get(x.ndim, torch.contiguous_format)):
                sha.update(net(x.to(memory_format=layout)).numpy().tobytes())
    return sha.hexdigest()


def test_every_cpu_path_and_thread_count_gives_the_same_bits():
    found = {"here": digest()}
    for capability, threads in (("default", "2"), ("avx2", "1")):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads}
        code = "import importlib.util, sys; s = importlib.util.spec_from_file_location('t', sys.argv[1]); m = importlib.util.module_from_spec(s);"
        run = subprocess.run(
            [sys.executable, "-c", code + "s.loader.exec_module(m); print(m.digest())", __file__],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        found[capability] = run.stdout.split()[-1]
    assert len(set(found.values())) == 1, found
