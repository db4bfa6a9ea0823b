"""Convolutions of codes in bytes: the sums of float32, or none."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import nn as lnn
from lobit.nn import integer_convolution as bytes_of
from lobit.nn.integer_convolution import LARGEST_K, Convolution, Integers, integer_convolution

needs_kernels = pytest.mark.skipif(not bytes_of.available(), reason="no exact byte kernels in this PyTorch, on this processor")
LEVELS = {
    "signs": Integers(-1, 1, True),
    "u1": Integers(0, 1),
    "u2": Integers(0, 3),
    "s2": Integers(-2, 1),
    "s4": Integers(-8, 7),
    "u8": Integers(0, 255),
}
WEIGHTS = {"signs": Integers(-1, 1, True), "s2": Integers(-2, 1), "s8": Integers(-128, 127), "u1": Integers(0, 1)}


def draw(shape, held, generator):
    if held.signs:
        return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return torch.randint(held.lo, held.hi + 1, shape, generator=generator).float()


def sums_of(x, w, how, held):
    return integer_convolution(x, w, w.to(torch.int8), None, None, how, held)


def exact(x, w, how):
    return F.conv2d(x.double(), w.double(), None, how.stride, how.padding, how.dilation)


@needs_kernels
@settings(max_examples=60)
@given(
    data=st.data(), seed=st.integers(0, 2**31), of_x=st.sampled_from(sorted(LEVELS)), of_w=st.sampled_from(sorted(WEIGHTS)),
    channels=st.integers(1, 40), outputs=st.integers(1, 40), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)  # fmt: skip
def test_any_geometry_has_the_sums_of_float64(data, seed, of_x, of_w, channels, outputs, kernel):
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    stride, dilation, padding = data.draw(pairs), data.draw(pairs), data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    size = data.draw(st.tuples(st.integers(12, 30), st.integers(12, 30)))
    images = -(-4096 // (channels * size[0] * size[1])) + data.draw(st.integers(0, 2))
    generator = torch.Generator().manual_seed(seed)
    x, w = draw((images, channels, *size), LEVELS[of_x], generator), draw((outputs, channels, *kernel), WEIGHTS[of_w], generator)
    if data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    how = Convolution(stride, padding, dilation, 1)
    y = sums_of(x, w, how, (LEVELS[of_x], WEIGHTS[of_w]))
    z = exact(x, w, how)
    if y is None:  # too few outputs to be worth it
        assert len(x) * z[0, 0].numel() < bytes_of.WORTH_PACKING
    else:
        assert torch.equal(y.double(), z)


@needs_kernels
@pytest.mark.parametrize("of_x", ["signs", "u2", "s4"])
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("w_end", [0, 1])
def test_the_longest_sums_of_the_largest_codes(of_x, end, w_end):
    held = (LEVELS[of_x], WEIGHTS["s8"])
    k = min(2**24 // ((held[0].hi - held[0].lo) * 128), 40_000) // 16 * 16
    x = torch.full((8, k, 4, 4), float(held[0][end]))
    w = torch.full((3, k, 1, 1), float(held[1][w_end]))
    how = Convolution((1, 1), (0, 0), (1, 1), 1)
    assert torch.equal(sums_of(x, w, how, held).double(), exact(x, w, how))


@needs_kernels
def test_unsigned_bytes_have_sums_up_to_32_bits_rounded_once():
    held = (LEVELS["u8"], WEIGHTS["s8"])
    k = LARGEST_K // 16 * 16
    x, w = torch.full((8, k, 4, 4), 255.0), torch.full((2, k, 1, 1), -128.0)
    w[1] = 127.0
    how = Convolution((1, 1), (0, 0), (1, 1), 1)
    assert torch.equal(sums_of(x, w, how, held), exact(x, w, how).float())
    wider = torch.full((8, LARGEST_K + 1, 4, 4), 255.0)
    assert sums_of(wider, torch.full((2, LARGEST_K + 1, 1, 1), 127.0), how, held) is None


@pytest.mark.parametrize(
    ("x_shape", "how", "held"),
    [
        ((4, 8, 16, 16), Convolution((1, 1), (0, 0), (1, 1), 8), (LEVELS["u2"], WEIGHTS["s2"])),
        ((4, 8, 16, 16), Convolution((1, 1), (0, 0), (1, 1), 1, True), (LEVELS["u2"], WEIGHTS["s2"])),
        ((4, 8, 16, 16), Convolution((1, 1), (0, 0), (1, 1), 1), (Integers(-255, 255), WEIGHTS["s2"])),
        ((4, 8, 16, 16), Convolution((1, 1), (0, 0), (1, 1), 1), (LEVELS["u2"], Integers(-255, 255))),
        ((64, 8, 3, 3), Convolution((3, 3), (0, 0), (1, 1), 1), (LEVELS["u2"], WEIGHTS["s2"])),
        ((1, 8, 23, 23), Convolution((2, 2), (0, 0), (1, 1), 1), (LEVELS["u2"], WEIGHTS["s2"])),
        ((64, 8, 8), Convolution((1,), (0,), (1,), 1), (LEVELS["u2"], WEIGHTS["s2"])),
    ],
    ids=["groups", "transposed", "wide input", "wide weights", "few outputs", "little work", "one axis"],
)
def test_what_the_kernels_are_not_for_is_left_to_float(x_shape, how, held):
    generator = torch.Generator().manual_seed(0)
    w = draw((6, 8 // how.groups, *[3] * (len(x_shape) - 2)), WEIGHTS["s2"], generator)
    assert sums_of(draw(x_shape, LEVELS["u2"], generator), w, how, held) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.5, 4.0, -1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_input_that_is_no_code_is_left_to_float(value, layout):
    x = draw((4, 8, 16, 16), LEVELS["u2"], torch.Generator().manual_seed(0)).to(memory_format=layout)
    x[2, 5, 3, 9] = value
    w = torch.ones(4, 8, 3, 3)
    assert sums_of(x, w, Convolution((1, 1), (1, 1), (1, 1), 1), (LEVELS["u2"], WEIGHTS["s2"])) is None


@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_a_value_that_is_not_a_number_comes_through_a_layer(where):
    layer = lnn.Conv2d(8, 4, 3, padding=1, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2})
    x = torch.rand(4, 8, 16, 16)
    layer(x)
    with torch.no_grad():
        tensor = x if where == "x" else getattr(layer, where)
        tensor.view(-1)[7 % tensor.numel()] = float("nan")
    assert layer(x).isnan().any()


CODES = [("sign", 1), ("lsq", 1), ("lsq", 2), ("lsq", 8), ("dorefa", 3)]


@needs_kernels
@pytest.mark.parametrize(("name", "bits"), CODES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_of_training_is_the_same_with_and_without(name, bits, layout, autocast, monkeypatch):
    torch.manual_seed(0)
    how = {"name": name, "bits": bits} if name != "sign" else name
    layer = lnn.Conv2d(9, 20, 3, 2, 1, weight_quantizer=how, input_quantizer=how)
    x = torch.randn(8, 9, 15, 13).to(memory_format=layout)
    layer(x)
    found = []
    for here in (True, False):
        monkeypatch.setattr(bytes_of, "available", lambda here=here: here)
        copied, given_x = copy.deepcopy(layer), x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = copied(given_x)
        assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert y.is_contiguous(memory_format=layout)
        y.float().square().sum().backward()
        found.append([y.detach(), given_x.grad, *(p.grad for p in copied.parameters() if p.grad is not None)])
    if autocast:  # in bytes the sums are exact and rounded to bf16 once; in bf16 they are rounded before the scale too
        torch.testing.assert_close(found[0][0].float(), found[1][0].float(), rtol=2**-6, atol=2**-6)
    else:
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_where_there_are_no_byte_kernels_none_are_used(monkeypatch):
    def missing(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(bytes_of, "byte_convolution", missing)
    bytes_of.available.cache_clear()
    try:
        assert not bytes_of.available()
        layer = lnn.Conv2d(8, 4, 3, weight_quantizer="sign", input_quantizer="sign")
        assert layer(torch.randn(4, 8, 16, 16)).isfinite().all()
    finally:
        bytes_of.available.cache_clear()


def test_kernels_that_are_not_exact_are_not_used(monkeypatch):
    def saturating(x, weight, how):
        return F.conv2d(x.float(), weight.float()).clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(bytes_of, "byte_convolution", saturating)
    bytes_of.available.cache_clear()
    try:
        assert not bytes_of.available()
    finally:
        bytes_of.available.cache_clear()
