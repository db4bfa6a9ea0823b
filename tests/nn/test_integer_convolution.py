"""Convolutions of codes in bytes: the sums of float32, or none."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.training.nets import TASKS
from lobit import nn as lnn
from lobit.nn import integer_convolution as bytes_of
from lobit.nn.integer_convolution import LARGEST_K, Convolution, Integers, integer_convolution
from lobit.nn.scaled_product import scaled_product

needs_kernels = pytest.mark.skipif(not bytes_of.available(), reason="no exact byte kernels in this PyTorch, on this processor")
LEVELS = {
    "signs": Integers(-1, 1, True),
    "u1": Integers(0, 1),
    "u2": Integers(0, 3),
    "s2": Integers(-2, 1),
    "s4": Integers(-8, 7),
    "u8": Integers(0, 255),
}
WEIGHTS = {"signs": Integers(-1, 1, True), "s2": Integers(-2, 1), "s4": Integers(-8, 7), "s8": Integers(-128, 127), "u1": Integers(0, 1)}


def draw(shape, held, generator):
    if held.signs:
        return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return torch.randint(held.lo, held.hi + 1, shape, generator=generator).float()


def sums_of(x, w, how, held):
    return integer_convolution(x, w, w.to(torch.int8), None, None, how, held)


def exact(x, w, how):
    return F.conv2d(x.double(), w.double(), None, how.stride, how.padding, how.dilation)


SIZES, STEPS = (
    st.one_of(st.integers(1, 3), st.integers(1, 7), st.integers(1, 16)),
    st.one_of(st.integers(1, 2), st.integers(1, 3), st.integers(1, 16)),
)
CHANNELS = st.one_of(st.sampled_from([1, 3, 4, 8, 16, 32, 48, 64, 128]), st.integers(1, 130))


@needs_kernels
@settings(max_examples=600)
@given(
    data=st.data(), seed=st.integers(0, 2**31), of_x=st.sampled_from(sorted(LEVELS)), of_w=st.sampled_from(sorted(WEIGHTS)),
    channels=CHANNELS, outputs=st.integers(1, 70), kernel=st.tuples(SIZES, SIZES), stride=st.tuples(STEPS, STEPS), out=st.tuples(SIZES, SIZES),
)  # fmt: skip
def test_any_geometry_has_the_sums_of_float64_or_is_left_to_float(data, seed, of_x, of_w, channels, outputs, kernel, stride, out):
    dilation, padding = (
        data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    )
    beyond = [data.draw(st.integers(0, step - 1)) for step in stride]
    size = [
        max((o - 1) * s + d * (k - 1) + 1 + b - 2 * p, 1)
        for o, s, d, k, b, p in zip(out, stride, dilation, kernel, beyond, padding, strict=True)
    ]
    images = max(-(-4096 // (channels * size[0] * size[1])), -(-bytes_of.WORTH_PACKING // (out[0] * out[1]))) + data.draw(st.integers(0, 2))
    assume(images * channels * size[0] * size[1] < 2**21)
    assume(images * out[0] * out[1] * channels * outputs * kernel[0] * kernel[1] < 2**27)
    generator = torch.Generator().manual_seed(seed)
    x, w = draw((images, channels, *size), LEVELS[of_x], generator), draw((outputs, channels, *kernel), WEIGHTS[of_w], generator)
    if data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    how = Convolution(stride, padding, dilation, 1)
    y = sums_of(x, w, how, (LEVELS[of_x], WEIGHTS[of_w]))
    assert y is None or torch.equal(y, exact(x, w, how).float())


# input, outputs, kernel, stride, dilation: where byte kernels of oneDNN 3.12 were found wrong, or their source says that they are, and what is next to these
NASTY = {
    "one column, stride 2": ((16, 64, 33, 3), 64, (3, 3), (2, 2), (1, 1)),
    "one column, stride 2 in width": ((8, 16, 40, 4), 32, (3, 4), (1, 2), (1, 1)),
    "one column and a border": ((5, 16, 70, 2), 33, (1, 2), (1, 3), (1, 1)),
    "one column, stride 1": ((16, 64, 33, 3), 64, (3, 3), (1, 1), (1, 1)),
    "one column, dilated": ((5, 17, 40, 5), 33, (3, 3), (1, 2), (1, 2)),
    "one pixel of each image": ((128, 64, 3, 3), 128, (3, 3), (2, 2), (1, 1)),
    "patches of 4": ((4, 32, 32, 32), 64, (4, 4), (4, 4), (1, 1)),
    "patches of 6": ((4, 32, 36, 36), 64, (6, 6), (6, 6), (1, 1)),
    "patches of 8": ((4, 16, 64, 64), 64, (8, 8), (8, 8), (1, 1)),
    "patches of 16": ((4, 8, 128, 128), 33, (16, 16), (16, 16), (1, 1)),
    "patches of 48 channels": ((4, 48, 32, 32), 64, (4, 4), (4, 4), (1, 1)),
    "patches that overlap": ((4, 32, 32, 32), 64, (8, 8), (4, 4), (1, 1)),
    "patches of a row": ((4, 32, 32, 32), 64, (1, 8), (1, 4), (1, 1)),
    "many columns": ((2, 16, 24, 40), 40, (3, 8), (1, 1), (1, 1)),
    "many columns of 12 channels": ((2, 12, 24, 40), 40, (2, 16), (1, 5), (1, 1)),
    "many rows": ((2, 16, 40, 32), 40, (8, 1), (1, 1), (1, 1)),
    "many rows of 12 channels": ((4, 12, 30, 16), 100, (16, 1), (3, 1), (1, 1)),
    "one column of a row, stride 1": ((60, 16, 2, 12), 20, (1, 12), (1, 1), (1, 1)),
    "a stride beyond the kernel": ((4, 32, 33, 300), 48, (2, 2), (3, 3), (1, 1)),
    "a stride beyond the kernel's height": ((2, 32, 67, 300), 48, (1, 3), (3, 1), (1, 1)),
}
FINE = {
    "one column of a kernel of one pixel": ((128, 64, 4, 2), 33, (1, 1), (2, 2), (1, 1)),
    "two columns": ((16, 64, 33, 5), 64, (3, 3), (2, 2), (1, 1)),
    "one row": ((16, 64, 3, 33), 64, (3, 3), (2, 2), (1, 1)),
    "patches of 2": ((4, 32, 32, 32), 64, (2, 2), (2, 2), (1, 1)),
    "patches of 3": ((4, 64, 36, 36), 64, (3, 3), (3, 3), (1, 1)),
    "a kernel of 7 that keeps to few columns": ((2, 16, 24, 40), 40, (7, 7), (1, 2), (1, 1)),
    "one pixel in four": ((4, 64, 32, 32), 65, (1, 1), (2, 2), (1, 1)),
    "one pixel in 256": ((4, 20, 128, 128), 17, (1, 1), (16, 16), (1, 1)),
    "an image": ((2, 3, 64, 64), 64, (7, 7), (2, 2), (1, 1)),
    "an image, stride 3": ((2, 3, 99, 99), 64, (7, 7), (3, 3), (1, 1)),
    "dilated": ((2, 33, 40, 40), 20, (3, 3), (2, 2), (2, 3)),
    "wide": ((1, 16, 9, 600), 40, (3, 5), (2, 2), (1, 1)),
}


@needs_kernels
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", [*NASTY, *FINE])
def test_geometries_that_the_kernels_compute_wrongly_are_left_to_float_and_those_beside_are_right(name, layout):
    shape, outputs, kernel, stride, dilation = (NASTY | FINE)[name]
    generator, held = torch.Generator().manual_seed(0), (LEVELS["u2"], WEIGHTS["s2"])
    x, w = draw(shape, held[0], generator).to(memory_format=layout), draw((outputs, shape[1], *kernel), held[1], generator)
    how = Convolution(stride, (0, 0), dilation, 1)
    y = sums_of(x, w, how, held)
    assert y is None if name in NASTY else torch.equal(y.double(), exact(x, w, how))
    assert torch.equal(scaled_product(x, w, torch.tensor(1.0), None, how, held).double(), exact(x, w, how))


@needs_kernels
@pytest.mark.parametrize(("name", "images", "size"), [("cifar10-convnet", 64, 32), ("resnet18", 8, 224), ("resnet18", 128, 64)])
def test_every_convolution_of_the_nets_that_are_timed_is_one_of_bytes(name, images, size):
    with torch.device("meta"):
        net, met = TASKS[name].make(), []
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(lambda layer, args, _: met.append((layer, args[0].shape)))
        net(torch.empty(images, 3, size, size))
    assert len(met) == {"cifar10-convnet": 6, "resnet18": 20}[name]
    for layer, shape in met:
        how = Convolution(layer.stride, layer.padding, layer.dilation, 1)
        assert sums_of(torch.zeros(shape), torch.zeros(layer.weight.shape), how, (LEVELS["u2"], WEIGHTS["s2"])) is not None, (layer, shape)


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
        ((4096, 1, 1, 1), Convolution((1, 1), (1, 1), (1, 1), 1), (LEVELS["u2"], WEIGHTS["s2"])),
        ((2, 1024, 9, 9), Convolution((1, 1), (1, 1), (1, 1), 1), (Integers(-255, -254), WEIGHTS["s8"])),
    ],
    ids=[
        "groups",
        "transposed",
        "wide input",
        "wide weights",
        "few outputs",
        "little work",
        "one axis",
        "images of one value",
        "far from 0",
    ],
)
def test_what_the_kernels_are_not_for_is_left_to_float(x_shape, how, held):
    generator = torch.Generator().manual_seed(0)
    w = draw((6, x_shape[1] // how.groups, *[3] * (len(x_shape) - 2)), WEIGHTS["s2"], generator)
    assert sums_of(draw(x_shape, held[0], generator), w, how, held) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.5, 4.0, -1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_input_that_is_no_code_is_left_to_float(value, layout):
    x = draw((4, 8, 16, 16), LEVELS["u2"], torch.Generator().manual_seed(0)).to(memory_format=layout)
    x[2, 5, 3, 9] = value
    w = torch.ones(4, 8, 3, 3)
    assert sums_of(x, w, Convolution((1, 1), (1, 1), (1, 1), 1), (LEVELS["u2"], WEIGHTS["s2"])) is None


RANGES = [(-102, 153), (-1, 254), (-128, 127), (-129, 126), (-254, 1), (-255, 0), (-51, 76), (-200, -100), (-3, 200), (100, 255), (7, 7)]


@needs_kernels
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("lo", "hi"), RANGES)
@pytest.mark.parametrize("padding", [0, 1])
def test_any_256_integers_have_sums_and_gradients_of_float64(lo, hi, layout, padding):
    generator, held = torch.Generator().manual_seed(0), (Integers(lo, hi), WEIGHTS["s4"])
    x = draw((8, 10, 12, 14), held[0], generator)
    x.view(-1)[:2] = torch.tensor([lo, hi])
    x = x.to(memory_format=layout)
    weight, grad = draw((12, 10, 3, 3), held[1], generator), draw((8, 12, 10 + 2 * padding, 12 + 2 * padding), LEVELS["s2"], generator)
    how = Convolution((1, 1), (padding, padding), (1, 1), 1)
    assert torch.equal(sums_of(x, weight, how, held).double(), exact(x, weight, how))
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight)]
        y = scaled_product(*leaves, torch.tensor(0.5), None, how, held) if dtype == torch.float32 else exact(*leaves, how) * 0.5
        y.backward(grad.to(dtype))
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(a.double(), b) for a, b in zip(*found, strict=True))


@needs_kernels
@pytest.mark.parametrize("bits", [3, 7, 8])
@pytest.mark.parametrize("ends", [(-2.0, 3.0), (-5.0, 0.1), (-0.1, 5.0), (-6.0, -1.0), (1.0, 4.0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inputs_with_a_zero_point_are_the_same_in_training_and_in_eval(bits, ends, layout):
    torch.manual_seed(0)
    layer = lnn.Conv2d(16, 32, 3, padding=1, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "affine", "bits": bits})
    x = (torch.rand(4, 16, 16, 16) * (ends[1] - ends[0]) + ends[0]).to(memory_format=layout)
    layer(x)
    y = layer(x)
    assert torch.equal(y, layer.eval()(x))


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


def clamped(x, weight, how):
    return F.conv2d(x.float(), weight.float(), None, how.stride, 0, how.dilation).clamp(-(2**15), 2**15 - 1)


def wrong_where(spoilt):
    def convolution(x, weight, how):
        y = F.conv2d(x.double(), weight.double(), None, how.stride, 0, how.dilation).float()
        y[-1, -1, -1, -1] += 1024 * spoilt(weight, how)
        return y

    return convolution


@pytest.mark.parametrize(
    "kernels",
    [
        clamped,
        wrong_where(lambda weight, how: how.stride == (2, 2) and weight.shape[2] == 3),
        wrong_where(lambda weight, how: how.stride == (2, 2) and weight.shape[2] == 1),
        wrong_where(lambda weight, how: how.stride == weight.shape[2:] == (2, 2)),
        wrong_where(lambda weight, how: weight.shape[1] == 3),
        wrong_where(lambda weight, how: how.dilation == (2, 2)),
    ],
    ids=["saturating", "stride", "stride of one pixel", "patches", "images", "dilation"],
)
def test_kernels_that_are_not_exact_are_not_used(kernels, monkeypatch):
    bytes_of.available.cache_clear()
    try:
        monkeypatch.setattr(bytes_of, "byte_convolution", wrong_where(lambda weight, how: False))
        assert bytes_of.available()
        bytes_of.available.cache_clear()
        monkeypatch.setattr(bytes_of, "byte_convolution", kernels)
        assert not bytes_of.available()
    finally:
        bytes_of.available.cache_clear()


@needs_kernels
def test_a_geometry_that_fails_its_proof_is_left_to_float(monkeypatch):
    held, how = (LEVELS["u2"], WEIGHTS["s2"]), Convolution((1, 1), (1, 1), (1, 1), 1)
    generator = torch.Generator().manual_seed(0)
    x, w = draw((4, 8, 16, 16), held[0], generator), draw((6, 8, 3, 3), held[1], generator)
    right, tried = bytes_of.byte_convolution, []

    def wrong(*given):
        tried.append(given)
        sums = right(*given)
        sums[-1, -1, -1, -1] += 1
        return sums

    assert bytes_of.available()
    monkeypatch.setattr(bytes_of, "_PROOFS", {})
    with monkeypatch.context() as fault:
        fault.setattr(bytes_of, "byte_convolution", wrong)
        assert sums_of(x, w, how, held) is None
        assert sums_of(x, w, how, held) is None
    assert len(tried) == 1
    monkeypatch.setattr(bytes_of, "_PROOFS", {})
    monkeypatch.setattr(bytes_of, "MOST_PROOFS", 1)
    state = torch.get_rng_state()
    assert sums_of(x, w, how, held) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert sums_of(x[:3], w, how, held) is None, "no more proofs are made"
    assert sums_of(x, w, how, held) is not None
