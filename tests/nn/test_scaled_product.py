"""A product of codes times its scale in training: gradients are those of the plain arithmetic, and what is kept is small."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.nn.integer_convolution import Convolution, Integers
from lobit.nn.scaled_product import scaled_product

CASES = [
    ("linear", (7,), (6, 7)),
    ("linear", (5, 7), (6, 7)),
    ("linear", (2, 5, 7), (6, 7)),
    (Convolution((1,), (2,), (1,), 1), (3, 4, 9), (6, 4, 3)),
    (Convolution((1, 2), (1, 0), (2, 1), 1), (3, 4, 9, 8), (6, 4, 3, 2)),
    (Convolution((1, 1), (1, 1), (1, 1), 4), (3, 4, 6, 6), (4, 1, 3, 3)),
    (Convolution((2, 1, 1), (1, 1, 1), (1, 1, 1), 2), (2, 4, 5, 4, 4), (6, 2, 3, 3, 3)),
    (Convolution((2,), (1,), (1,), 1, True, (1,)), (3, 4, 5), (6, 4, 3)),
    (Convolution((2, 1), (1, 0), (1, 2), 2, True, (1, 0)), (3, 4, 5, 6), (6, 2, 3, 2)),
    (Convolution((1, 2, 1), (0, 1, 0), (1, 1, 1), 4, True, (0, 1, 0)), (2, 4, 2, 3, 2), (4, 1, 2, 3, 1)),
]


def plain(x, weight, scale, bias, how):
    if how == "linear":
        return F.linear(x, weight) * scale + bias
    if how.transposed:  # weights lie as (I, O / groups, ..) there
        weight = torch.cat([part.transpose(0, 1) for part in weight.chunk(how.groups)])
    extra = how.output_padding if how.transposed else (0,) * len(how.stride)
    y = torch.convolution(x, weight, None, how.stride, how.padding, how.dilation, how.transposed, extra, how.groups)
    shape = (-1, *[1] * len(how.stride))
    return y * scale.reshape(shape) + bias.reshape(shape)


@pytest.mark.parametrize("one", [True, False])
@pytest.mark.parametrize(("how", "x_shape", "w_shape"), CASES)
def test_values_and_gradients_are_those_of_the_plain_arithmetic(how, x_shape, w_shape, one):
    torch.manual_seed(0)
    x, w = torch.randint(0, 4, x_shape).float(), torch.randint(-8, 8, w_shape).float()
    scale, bias = torch.rand(1 if one else w_shape[0]) + 0.1, torch.randn(w_shape[0])
    ours = [t.clone().requires_grad_() for t in (x, w, scale, bias)]
    theirs = [t.double().requires_grad_() for t in (x, w, scale, bias)]
    y, z = scaled_product(*ours, how, (Integers(0, 3), Integers(-8, 7))), plain(*theirs, how)
    torch.testing.assert_close(y.double(), z, rtol=1e-6, atol=1e-6)
    g = torch.randn_like(y)
    y.backward(g)
    z.backward(g.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("range_x", "dtype"), [((-128, 127), torch.int8), ((0, 255), torch.uint8), ((-255, 255), torch.int16), ((-3, 255), torch.int16)]
)
def test_codes_are_kept_in_the_smallest_type_that_holds_them(range_x, dtype):
    x = torch.tensor([[float(range_x[0]), float(range_x[1])]], requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = scaled_product(
            x, torch.ones(3, 2, requires_grad=True), torch.tensor([0.5]), None, "linear", (Integers(*range_x), Integers(-1, 1))
        )
    assert [t.dtype for t in kept[:2]] == [dtype, torch.int8]
    y.sum().backward()
    assert x.grad.tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("weights", ["lsq", "dorefa", "linear", "magnitude_sign"])
@pytest.mark.parametrize("padding", [0, 1, "same", "valid"])
def test_a_layer_trains_as_its_plain_arithmetic_does(weights, padding, monkeypatch):
    torch.manual_seed(0)
    bits = 1 if weights == "magnitude_sign" else 3
    settings = {"weight_quantizer": {"name": weights, "bits": bits}, "input_quantizer": {"name": "lsq", "bits": 2}}
    layer = lnn.Conv2d(3, 8, 3, padding=padding, **settings)
    x = torch.randn(4, 3, 6, 6)
    layer(x)
    found = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(layer, "linear_map", lambda _: None)
        layer.zero_grad()
        a = x.clone().requires_grad_()
        y = layer(a)
        y.square().sum().backward()
        found.append([y.detach(), a.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_neither_sums_nor_float_codes_are_kept():
    layer = lnn.Conv2d(
        16, 16, 3, padding=1, bias=False, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2}
    )
    x = torch.randn(4, 16, 16, 16, requires_grad=True)
    layer(x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    large = [t for t in kept if t.numel() >= x.numel()]
    assert sum(t.numel() * t.element_size() for t in large if t.data_ptr() != x.data_ptr()) <= x.numel()  # a byte a code
    assert any(t.data_ptr() == x.data_ptr() for t in large)


def test_bf16_autocast_runs_the_product_in_bf16_and_gradients_come_back_in_float32():
    net = nn.Sequential(
        lnn.Conv2d(3, 8, 3, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 8}), nn.ReLU(), nn.Flatten(),
        lnn.Linear(8 * 16, 5, weight_quantizer="sign", input_quantizer={"name": "lsq", "bits": 2}),
    )  # fmt: skip
    x = torch.rand(4, 3, 6, 6)
    net(x)
    plain = [y.detach() for y in (net(x),)]
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), plain[0], rtol=0.1, atol=0.5)
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_signs_are_kept_as_bits(layout):
    layer = lnn.Conv2d(16, 8, 3, padding=1, weight_quantizer="sign", input_quantizer="sign")
    x = torch.randn(4, 16, 16, 16).to(memory_format=layout).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(x)
    assert (
        sum(t.numel() * t.element_size() for t in kept) <= 2 * x.numel() / 8 + 2 * layer.weight.numel()
    )  # signs, the window's mask, weights
    g = torch.randn_like(y)
    y.backward(g)
    a, w = x.detach().double().requires_grad_(), layer.weight.detach().double().sign().requires_grad_()
    F.conv2d(a.sign() + (a - a.detach()) * (a.detach().abs() <= 1), w, padding=1).backward(g.double())
    torch.testing.assert_close(x.grad.double(), a.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.weight.grad.double(), w.grad, rtol=1e-4, atol=1e-3)


def test_an_empty_batch_has_zero_gradients():
    layer = lnn.Linear(6, 4, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2})
    layer(torch.randn(3, 6))
    layer(torch.randn(0, 6, requires_grad=True)).sum().backward()
    assert not layer.weight.grad.any()


def test_a_layer_of_float64_has_gradients_of_float64():
    """Its step is a float64, which loops over float32 must not read."""
    torch.manual_seed(0)
    layer = lnn.Conv1d(1, 1, 2, bias=False, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 3})
    x = torch.randn(4, 1, 5)
    layer(x)
    layer, a = layer.double(), x.double().requires_grad_()
    layer(a).square().sum().backward()
    found = [a.grad, layer.weight.grad, layer.weight_quantizer.step.grad]
    b = x.double().requires_grad_()
    layer.zero_grad()
    F.conv1d(layer.input_quantizer(b).values(), layer.weight_quantizer(layer.weight).values()).square().sum().backward()
    for ours, theirs in zip(found, (b.grad, layer.weight.grad, layer.weight_quantizer.step.grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class _Awry(Q.LogQuant):
    """Powers of two that a layer is told are integers, with a code type that fails."""

    fractions = False


def test_a_code_type_that_fails_is_not_taken_for_zeros():
    layer = lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer=_Awry(8))
    with pytest.raises(ConfigError, match="for training alone"):
        layer(torch.rand(4, 6) + 0.1)


class _Waits(Q.ActivationQuantizer):
    """Zeros until it is told otherwise."""

    undecided = True

    @property
    def code_type(self):
        raise ConfigError("undecided")

    def forward(self, x):
        return Q.Quantized(x * 0, torch.ones(()))


def test_a_quantizer_that_says_it_is_undecided_gives_zeros():
    layer = lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer=_Waits())
    y = layer(torch.rand(4, 6))
    assert torch.equal(y, layer.bias.expand(4, 3))
    y.sum().backward()
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("name", ["lsq", "affine", "lsq_plus"])
def test_quantizers_that_start_at_data_are_undecided_until_a_batch_with_other_values(name):
    quantizer = Q.get({"name": name, "bits": 4}, "activations")
    layer = lnn.Linear(6, 3, weight_quantizer="sign", input_quantizer=quantizer)
    for x, waits in ((torch.zeros(4, 6), True), (torch.rand(4, 6), False)):
        assert Q.CodeDropout(quantizer, 0.1).undecided
        layer(x).sum().backward()
        assert quantizer.undecided is waits


def test_an_input_that_calibration_observes_keeps_its_floats_for_the_gradient():
    layer = lnn.Linear(6, 3, weight_quantizer={"name": "linear", "bits": 4}, input_quantizer={"name": "lsq", "bits": 4})
    layer.input_quantizer.observer = Q.Observer()
    x = torch.rand(4, 6)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(3, 6))


def test_signs_that_dropout_left_out_are_kept_as_zeros():
    torch.manual_seed(0)
    layer = lnn.Linear(512, 4, bias=False, weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.Sign(), 0.5))
    x = torch.randn(64, 512)  # enough for the path that keeps bits
    with torch.random.fork_rng():
        inputs = layer.input_quantizer(x)
    assert (inputs.codes == 0).any()
    y = layer(x)
    g = torch.randn_like(y)
    y.backward(g)
    torch.testing.assert_close(layer.weight.grad, g.T @ inputs.values(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(4, 3, 20, 22), (2, 3, 9, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_step_of_an_image_has_the_gradient_that_it_has_through_the_image(bits, shape, layout):
    torch.manual_seed(0)
    layer = lnn.Conv2d(3, 8, 3, 2, 1, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": bits})
    x = torch.rand(shape).to(memory_format=layout)
    layer(x)
    found = []
    for through in (False, True):
        layer.zero_grad()
        y = layer(x.clone().requires_grad_(through))
        y.sin().sum().backward()
        found.append({name: p.grad.clone() for name, p in layer.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5, msg=name)
    assert found[0]["input_quantizer.step"] != 0


def test_no_gradient_of_an_image_is_formed_for_its_step(monkeypatch):
    asked = []
    backward = torch.ops.aten.convolution_backward
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", lambda *a: asked.append(a[-1]) or backward(*a))
    layer = lnn.Conv2d(3, 8, 3, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 8})
    layer(torch.rand(4, 3, 20, 20)).sum().backward()
    layer.zero_grad()
    asked.clear()
    layer(torch.rand(4, 3, 20, 20)).sum().backward()
    assert asked == [[False, True, False]]
    assert layer.input_quantizer.step.grad is not None
