"""Layers with quantized gradients: both backward products are products of codes, the forward pass is untouched, and nothing is computed twice."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.nn.gradients import product_with_quantized_gradient
from tests.processes import spawned

FORMS = ("dorefa", "linear", "log")
every_form = pytest.mark.parametrize("form", FORMS)
LINEAR4 = {"name": "linear", "bits": 4}
SIDES = list(itertools.product((None, LINEAR4), (None, LINEAR4)))


def gradients(form, bits=6, **settings):
    return {"name": form, "bits": bits, **settings}


def seen(layer):
    """What the layer's gradient quantizer will be given and give: a list that its backward passes fill."""
    record = []
    layer.gradient_quantizer.register_forward_hook(lambda _, given, result: record.append((given[0].clone(), result)))
    return record


def integers(tensor):
    array = tensor.detach().double().numpy()
    assert np.array_equal(array, np.rint(array))
    return array.astype(np.int64)


def with_largest(shape, largest, seed=0):
    """Gradients whose largest magnitude is exactly this, so that scales are powers of two and float32 holds every product exactly."""
    g = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    g.flatten()[3] = 1.0
    return g * largest


@every_form
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_both_backward_products_of_a_linear_layer_are_products_of_codes(form, bits):
    """``g_x = scale_g (codes_g . codes_w)``, ``g_w = scale_g (codes_g^T . codes_x)`` in 64-bit integers, bit for bit; the steps 2^-3 are divided out by the quantizers' own gradient."""
    torch.manual_seed(0)
    layer = lnn.Linear(
        11, 7, False, weight_quantizer=LINEAR4, input_quantizer=LINEAR4, gradient_quantizer=gradients(form, bits, scale_per="tensor")
    )
    x = (torch.rand(9, 11) * 1.6 - 0.8).requires_grad_()  # inside the range, where the input's gradient passes
    record, code = seen(layer), {"dorefa": 2**bits - 1, "linear": 2 ** (bits - 1) - 1, "log": 1}[form]
    layer(x).backward(with_largest((9, 7), code * 2.0**-9))
    ((given, q),) = record
    assert given.abs().max() == code * 2.0**-15  # behind the scale of the layer, 2^-3 2^-3
    codes_g, scale = integers(q.codes), float(q.scale)
    codes_x, codes_w = integers(layer.input_quantizer(x).codes), integers(layer.weight_quantizer(layer.weight).codes)
    np.testing.assert_array_equal(x.grad.double().numpy(), (codes_g @ codes_w) * scale * 2.0**3)
    np.testing.assert_array_equal(layer.weight.grad.double().numpy(), (codes_g.T @ codes_x) * scale * 2.0**3)


@every_form
def test_both_backward_products_of_a_convolution_are_products_of_codes(form):
    torch.manual_seed(0)
    layer = lnn.Conv2d(
        4,
        6,
        3,
        2,
        1,
        groups=2,
        bias=False,
        weight_quantizer=LINEAR4,
        input_quantizer=LINEAR4,
        gradient_quantizer=gradients(form, scale_per="tensor"),
    )
    x = (torch.rand(3, 4, 7, 5) * 1.6 - 0.8).requires_grad_()
    record, code = seen(layer), {"dorefa": 63, "linear": 31, "log": 1}[form]
    layer(x).backward(with_largest((3, 6, 4, 3), code * 2.0**-9))
    q = record[0][1]
    codes = [
        torch.tensor(integers(t)).double() for t in (q.codes, layer.input_quantizer(x).codes, layer.weight_quantizer(layer.weight).codes)
    ]
    of_x = F.conv_transpose2d(codes[0], codes[2], None, 2, 1, 0, 2)
    assert of_x.shape == x.shape
    of_w = torch.zeros_like(codes[2])
    padded = F.pad(codes[1], (1, 1, 1, 1))
    for i, j, out in itertools.product(range(3), range(3), range(6)):  # each weight meets its tap of every patch
        group = slice(0, 2) if out < 3 else slice(2, 4)
        taps = padded[:, group, i : i + 7 : 2, j : j + 5 : 2]
        of_w[out, :, i, j] = (taps * codes[0][:, out : out + 1]).sum((0, 2, 3))
    scale = float(q.scale) * 2.0**3
    assert torch.equal(x.grad.double(), of_x * scale)
    assert torch.equal(layer.weight.grad.double(), of_w * scale)


@every_form
@pytest.mark.parametrize("per", ["sample", "tensor"])
@pytest.mark.parametrize("sides", SIDES)
def test_a_layer_gives_what_autograd_gives_for_the_quantized_gradient_of_its_product(form, per, sides):
    torch.manual_seed(0)
    make = lambda **more: lnn.Conv2d(3, 5, 3, weight_quantizer=sides[0], input_quantizer=sides[1], **more)  # noqa: E731
    layer, plain = make(gradient_quantizer=gradients(form, scale_per=per)), make()
    plain.load_state_dict(layer.state_dict())
    x, other, g = torch.randn(4, 3, 6, 6, requires_grad=True), None, torch.randn(4, 5, 4, 4)
    other = x.detach().clone().requires_grad_()
    record = seen(layer)
    y, z = layer(x), plain(other)
    assert torch.allclose(y, z, rtol=0, atol=1e-5)
    y.backward(g)
    ((given, q),) = record
    factor = 2.0**-6 if all(sides) else 1.0
    assert torch.equal(given, g * factor)
    z.backward(q.values() / factor)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, g.sum((0, 2, 3)), rtol=1e-5, atol=1e-5)  # the bias is behind the product


@every_form
@pytest.mark.parametrize("sides", SIDES)
def test_with_inputs_only_the_weight_has_the_float_gradient_and_the_input_the_quantized_one(form, sides):
    torch.manual_seed(0)
    make = lambda **more: lnn.Conv2d(3, 5, 3, weight_quantizer=sides[0], input_quantizer=sides[1], **more)  # noqa: E731
    both = gradients(form, stochastic=False)
    layers = [make(gradient_quantizer=quantizer) for quantizer in (both | {"inputs_only": True}, both, None)]
    xs = [torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in layers]
    for layer, x in zip(layers, xs, strict=True):
        layer.load_state_dict(layers[0].state_dict())
        layer(x).backward(torch.randn(4, 5, 4, 4, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(xs[0].grad, xs[1].grad)
    assert not torch.equal(xs[0].grad, xs[2].grad)
    assert torch.equal(layers[0].weight.grad, layers[2].weight.grad)
    assert not torch.equal(layers[0].weight.grad, layers[1].weight.grad)


LAYERS = [
    (lambda **more: lnn.Linear(6, 4, **more), (2, 3, 6)),
    (lambda **more: lnn.Linear(6, 4, **more), (6,)),
    (lambda **more: lnn.Conv1d(3, 4, 3, padding=1, **more), (2, 3, 8)),
    (lambda **more: lnn.Conv2d(4, 8, 3, padding="same", groups=4, **more), (2, 4, 6, 6)),
    (lambda **more: lnn.Conv3d(2, 4, 3, padding=1, **more), (2, 2, 4, 4, 4)),
    (lambda **more: lnn.ConvTranspose1d(3, 4, 3, stride=2, **more), (2, 3, 8)),
    (lambda **more: lnn.ConvTranspose2d(4, 4, 3, stride=2, groups=2, output_padding=1, **more), (2, 4, 5, 5)),
    (lambda **more: lnn.ConvTranspose3d(2, 4, 3, **more), (2, 2, 4, 4, 4)),
]


@pytest.mark.parametrize("inputs_only", [False, True])
@pytest.mark.parametrize("sides", [(None, None), (LINEAR4, LINEAR4)])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_every_layer_with_a_product_has_quantized_gradients(make, shape, sides, inputs_only):
    """8 bits without noise: each gradient is off by half a step, 1/254 of the largest, at most, which turns its direction by little and not by nothing."""
    torch.manual_seed(0)
    quantizer = gradients("linear", 8, scale_per="tensor", stochastic=False, inputs_only=inputs_only)
    layer = make(weight_quantizer=sides[0], input_quantizer=sides[1], gradient_quantizer=quantizer)
    plain = make(weight_quantizer=sides[0], input_quantizer=sides[1])
    plain.load_state_dict(layer.state_dict())
    x, other = (torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in range(2))
    y = layer(x)
    g = torch.randn(y.shape)
    y.backward(g)
    plain(other).backward(g)
    assert F.cosine_similarity(x.grad.flatten(), other.grad.flatten(), 0) > 0.999
    assert not torch.allclose(x.grad, other.grad, rtol=1e-5, atol=1e-6)
    if inputs_only:
        torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)
    else:
        assert F.cosine_similarity(layer.weight.grad.flatten(), plain.weight.grad.flatten(), 0) > 0.999
        assert not torch.allclose(layer.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inputs_only", [False, True])
@pytest.mark.parametrize("kind", [lnn.RNN, lnn.LSTM, lnn.GRU])
def test_recurrent_layers_have_quantized_gradients(kind, inputs_only):
    torch.manual_seed(0)
    codes = {"weight_quantizer": LINEAR4, "input_quantizer": LINEAR4}
    layer, plain = kind(5, 7, 2, **codes, gradient_quantizer=gradients("dorefa", 8, inputs_only=inputs_only)), kind(5, 7, 2, **codes)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 3, 5)
    for each in (layer, plain):
        each(x)[0].square().sum().backward()
    for (name, a), b in zip(layer.named_parameters(), plain.parameters(), strict=True):
        assert F.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0) > 0.99, name
    assert not torch.equal(layer.weight_ih_l0.grad, plain.weight_ih_l0.grad)


class Counted:
    """A product that counts its runs, and what it kept for the backward pass."""

    def __init__(self):
        self.runs, self.kept = 0, []

    def __call__(self, x, weight):
        self.runs += 1
        hidden = x * 1.0  # linear in both factors; its product is kept by autograd alone
        self.kept.append(weakref.ref(hidden))
        return F.linear(hidden, weight)


@pytest.mark.parametrize("inputs_only", [False, True])
def test_the_product_runs_once_and_what_it_kept_goes_after_the_backward_pass(inputs_only):
    product, quantizer = Counted(), Q.get(gradients("linear", inputs_only=inputs_only), "gradients")
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    y = product_with_quantized_gradient(product, x, weight, quantizer)
    loss = y.square().sum()
    gc.collect()
    loss.backward(retain_graph=True)
    first = [x.grad, weight.grad]
    x.grad = weight.grad = None
    loss.backward()  # the graph was to be kept, so a second pass is possible
    assert product.runs == 1
    assert x.grad.shape == first[0].shape
    if inputs_only:
        assert torch.equal(weight.grad, first[1])
    gc.collect()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_what_the_product_saved_is_freed_by_the_backward_pass_though_the_loss_lives():
    freed = []

    class Notices(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            kept = x.clone()
            weakref.finalize(kept, freed.append, True)
            ctx.save_for_backward(kept)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 + 0 * ctx.saved_tensors[0]

    quantizer = Q.get(gradients("linear", inputs_only=True), "gradients")
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    loss = product_with_quantized_gradient(lambda a, b: F.linear(Notices.apply(a), b), x, weight, quantizer).square().sum()
    gc.collect()
    assert not freed
    loss.backward()
    gc.collect()
    assert freed


def test_with_inputs_only_a_first_layer_is_not_quantized_and_a_frozen_weight_changes_nothing():
    torch.manual_seed(0)
    layer = lnn.Linear(6, 4, gradient_quantizer=gradients("dorefa", 2, inputs_only=True))
    record = seen(layer)
    layer(torch.randn(3, 6)).square().sum().backward()
    assert not record
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 6, requires_grad=True)
    layer(x).square().sum().backward()
    assert torch.equal(x.grad, F.linear(record[0][1].values(), layer.weight.T))
    with torch.no_grad():
        layer(x)
    assert len(record) == 1


@pytest.mark.parametrize("inputs_only", [False, True])
def test_a_second_derivative_is_refused(inputs_only):
    layer, x = lnn.Linear(6, 4, gradient_quantizer=gradients("linear", inputs_only=inputs_only)), torch.randn(3, 6, requires_grad=True)
    with pytest.raises(ConfigError, match="create_graph=True"):  # ask for x alone: PyTorch's own refusal would not notice
        torch.autograd.grad(torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0].sum(), x)


@pytest.mark.parametrize("inputs_only", [False, True])
def test_an_activation_in_place_may_follow(inputs_only):
    torch.manual_seed(0)
    settings = gradients("linear", stochastic=False, inputs_only=inputs_only)
    x, layer = torch.randn(3, 6, requires_grad=True), lnn.Linear(6, 4, False, gradient_quantizer=settings)
    grads = [torch.autograd.grad(nn.ReLU(inplace)(layer(x)).square().sum(), [x, layer.weight]) for inplace in (True, False)]
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("inputs_only", [False, True])
def test_changing_the_input_in_place_before_the_backward_pass_is_refused_as_ever(inputs_only):
    layer = lnn.Linear(6, 4, gradient_quantizer=gradients("linear", inputs_only=inputs_only))
    x = torch.randn(3, 6, requires_grad=True) * 1
    y = layer(x)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def net(form, inputs_only, stochastic=False):
    torch.manual_seed(0)
    g = gradients(form, inputs_only=inputs_only, stochastic=stochastic)
    return nn.Sequential(
        lnn.Conv2d(3, 8, 3, padding=1, weight_quantizer=LINEAR4, input_quantizer=LINEAR4, gradient_quantizer=g),
        lnn.BatchNorm2d(8, momentum=0.0),
        nn.Tanh(),
        lnn.Conv2d(8, 4, 3, input_quantizer=LINEAR4, gradient_quantizer=g),
        nn.Flatten(),
        lnn.Linear(16, 5, weight_quantizer="magnitude_sign", gradient_quantizer=g),
    )


def step(model, x):
    x.grad = None
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]


@every_form
@pytest.mark.parametrize("inputs_only", [False, True])
def test_a_compiled_training_step_is_one_graph_and_the_same(form, inputs_only):
    model, x = net(form, inputs_only), torch.randn(6, 3, 4, 4, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for a, b in zip(step(model, x), step(compiled, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every_form
@pytest.mark.parametrize("inputs_only", [False, True])
def test_a_compiled_step_rounds_at_random_anew_each_time(form, inputs_only):
    model, x = net(form, inputs_only, stochastic=True), torch.randn(6, 3, 4, 4, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    first, second = step(compiled, x), step(compiled, x)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_the_compiler_sees_one_product_ahead_and_two_behind():
    from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd

    calls = {}

    def counts(which):
        def compiler(graph, _):
            calls[which] = sum("convolution" in str(node.target) for node in graph.graph.nodes)
            return make_boxed_func(graph.forward)

        return compiler

    backend = aot_autograd(fw_compiler=counts("ahead"), bw_compiler=counts("behind"), partition_fn=min_cut_rematerialization_partition)
    torch._dynamo.reset()
    layer = lnn.Conv2d(3, 4, 3, weight_quantizer=LINEAR4, input_quantizer=LINEAR4, gradient_quantizer=gradients("linear", inputs_only=True))
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    y.float().square().sum().backward()
    assert calls == {"ahead": 1, "behind": 2}


@every_form
@pytest.mark.parametrize("compiled", [False, True])
def test_under_bf16_autocast_codes_are_those_of_float32_and_inputs_only_leaves_the_weights_gradient(form, compiled):
    torch.manual_seed(0)
    make = lambda g: lnn.Linear(16, 8, weight_quantizer=LINEAR4, input_quantizer=LINEAR4, gradient_quantizer=g)  # noqa: E731
    layers = [make(gradients(form, 8, stochastic=False, inputs_only=True)), make(gradients(form, 8, stochastic=False)), make(None)]
    got = []
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())
        x = torch.randn(4, 16, generator=torch.Generator().manual_seed(3), requires_grad=True)
        torch._dynamo.reset()
        run = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
        with torch.autocast("cpu", torch.bfloat16):
            y = run(x)
        y.float().square().sum().backward()
        assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
        got.append((x.grad, layer.weight.grad))
    (x_only, w_only), (x_both, _), (x_float, w_float) = got
    assert torch.equal(w_only, w_float)
    torch.testing.assert_close(x_only, x_both, rtol=1e-2, atol=1e-2 * float(x_both.abs().max()))
    assert not torch.equal(x_only, x_float)
    if form != "log":
        assert F.cosine_similarity(x_only.flatten(), x_float.flatten(), 0) > 0.99


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inputs_only", [False, True])
def test_activation_checkpoints_change_nothing(inputs_only, reentrant):
    model, x = net("linear", inputs_only), torch.randn(6, 3, 4, 4, requires_grad=True)
    plain = step(model, x)

    def again(x):
        return checkpoint(model, x, use_reentrant=reentrant)

    again.zero_grad, again.parameters = model.zero_grad, model.parameters
    for a, b in zip(plain, step(again, x), strict=True):
        assert torch.equal(a, b)


@every_form
@pytest.mark.parametrize("inputs_only", [False, True])
class TestSpecialGradients:
    """Through a layer."""

    def layer(self, form, inputs_only):
        torch.manual_seed(0)
        return lnn.Linear(6, 4, gradient_quantizer=gradients(form, inputs_only=inputs_only))

    def test_zeros_give_zeros(self, form, inputs_only):
        layer, x = self.layer(form, inputs_only), torch.randn(3, 6, requires_grad=True)
        (layer(x) * 0).sum().backward()
        assert not any(t.grad.any() for t in (x, layer.weight, layer.bias))

    def test_nan_reaches_the_sample_and_every_parameter(self, form, inputs_only):
        layer, x = self.layer(form, inputs_only), torch.randn(3, 6, requires_grad=True)
        (layer(x) * torch.tensor([[1.0], [float("nan")], [1.0]])).sum().backward()
        assert x.grad[1].isnan().all()
        assert x.grad[[0, 2]].isfinite().all()
        assert layer.weight.grad.isnan().all()

    def test_an_empty_batch_gives_zeros_for_the_parameters(self, form, inputs_only):
        layer, x = self.layer(form, inputs_only), torch.randn(0, 6, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == (0, 6)
        assert not layer.weight.grad.any()


def test_a_layer_with_a_gradient_quantizer_alone_computes_as_torchs():
    torch.manual_seed(0)
    layer, x = lnn.Linear(6, 4, gradient_quantizer=gradients("dorefa")), torch.randn(5, 6)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-6, atol=1e-6)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_in_eval_the_gradient_is_quantized_for_small_and_for_large_sums_alike():
    for features in (8, 4096):  # 4096 sums of eight by eight bits are beyond float32
        settings = {"weight_quantizer": {"name": "linear", "bits": 8}, "input_quantizer": {"name": "linear", "bits": 8}}
        layer = lnn.Linear(features, 3, **settings, gradient_quantizer=gradients("linear")).eval()
        record, x = seen(layer), torch.randn(2, features, requires_grad=True)
        layer(x).square().sum().backward()
        assert len(record) == 1


def test_an_input_offset_has_quantized_gradients_for_both_its_sums():
    class Shifted(Q.LinearQuant):
        def forward(self, x):
            return super().forward(x)._replace(offset=torch.tensor(0.3))

    layer = lnn.Linear(
        6, 4, weight_quantizer=LINEAR4, input_quantizer=Shifted(4), gradient_quantizer=gradients("linear", inputs_only=False)
    )
    record = seen(layer)
    layer(torch.randn(3, 6, requires_grad=True)).square().sum().backward()
    assert sorted(tuple(given.shape) for given, _ in record) == [(1, 4), (3, 4)]


@every_form
def test_eight_bit_gradients_keep_the_direction(form):
    """The sine of the angle to the float gradient is at most the share of the error, whose mean square follows from the roundings' variance ``gap^2 / 4`` at most.

    ``g_x = g W`` and ``g_w = g^T X`` carry an error e of independent entries as ``E|e W|^2 = sum_no var(e_no) |W_o|^2`` and ``E|e^T X|^2 = sum_no var(e_no) |X_n|^2``. With these many
    entries the square error is within twice its mean.
    """
    torch.manual_seed(0)
    x, weight, g = torch.randn(64, 48, requires_grad=True), torch.randn(32, 48, requires_grad=True), torch.randn(64, 32)
    quantizer = Q.get(gradients(form, 8), "gradients")
    product_with_quantized_gradient(F.linear, x, weight, quantizer).backward(g)
    m, of_x, of_w = g.abs().amax(1, keepdim=True), x.detach(), weight.detach()
    gap = {"dorefa": 2 * m / 255, "linear": m / 127, "log": g.abs()}[form].expand(64, 32)  # of powers of two: |g| at most
    variance = gap.square() / 4
    for got, exact, error in (
        (x.grad, g @ of_w, (variance @ of_w.square().sum(1)).sum()),
        (weight.grad, g.T @ of_x, (variance * of_x.square().sum(1, keepdim=True)).sum()),
    ):
        share = float(2 * error / exact.square().sum())
        assert share < 0.9
        cosine = float(F.cosine_similarity(got.flatten(), exact.flatten(), 0))
        assert cosine >= (1 - share) ** 0.5
        assert form == "log" or (1 - share) ** 0.5 > 0.999


def test_a_net_with_eight_bit_gradients_has_nearly_the_float_gradients():
    """Each layer adds an error of at most the share ``(m / rms)^2 / n^2`` of its gradient's square, n = 255; here ``m < 12 rms`` in every sample, and three layers have at most 3 * (12 / 255)^2 = 0.7 %."""
    torch.manual_seed(0)
    model, x = net("dorefa", inputs_only=False), torch.randn(64, 3, 4, 4)
    plain = copy.deepcopy(model)
    records = []
    for layer, float_layer in zip(model, plain, strict=True):
        if isinstance(layer, lnn.QuantizedLayer):
            layer.gradient_quantizer = Q.get(gradients("dorefa", 8), "gradients")
            float_layer.gradient_quantizer = None
            records.append(seen(layer))
    for each in (model, plain):
        each(x).square().sum().backward()
    for ((given, _),) in records:
        peak = given.flatten(1).abs().amax(1) / given.flatten(1).square().mean(1).sqrt()
        assert peak.max() < 12
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        if name != "0.bias":  # ahead of a batch norm: its gradient is 0 but for rounding
            assert F.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0) > (1 - 3 * (12 / 255) ** 2) ** 0.5, name


def _two_steps(model, rank):
    """Gradients of a second step on this process's data."""
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(rank))
    for _ in range(2):
        model.zero_grad()
        model(x).square().mean().backward()
    return [p.grad for p in model.parameters()]


def _two_parallel_steps(rank):
    return [_two_steps(nn.parallel.DistributedDataParallel(net("linear", inputs_only)), rank) for inputs_only in (False, True)]


@pytest.mark.slow
def test_two_processes_get_the_mean_of_their_gradients(tmp_path):
    found = spawned(2, _two_parallel_steps, tmp_path)
    for inputs_only, both in zip((False, True), zip(*found, strict=True), strict=True):
        alone = [_two_steps(net("linear", inputs_only), rank) for rank in (0, 1)]
        for a, b, c, d in zip(*both, *alone, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, (c + d) / 2)


def test_a_quantizer_of_another_role_is_refused():
    with pytest.raises(ConfigError, match="quantizes weights, not gradients"):
        lnn.Linear(3, 3, gradient_quantizer=Q.SignWeights())
