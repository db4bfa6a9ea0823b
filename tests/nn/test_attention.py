"""Multi-head attention: without quantizers torch's; with them every product is an exact product of codes in eval, and trains through each."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit import optim
from lobit import quantizers as Q
from lobit.data.digits import load_digits
from lobit.errors import ConfigError, ShapeError
from lobit.nn.code_product import code_product
from lobit.nn.integer_convolution import Integers
from lobit.quantizers import calibrating
from tests.devices import DEVICES

FAMILIES = [
    ({"name": "lsq", "bits": 4}, {"name": "lsq", "bits": 4}),
    ({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8}),
    ("magnitude_sign", {"name": "lsq", "bits": 1}),
    ("sign", {"name": "linear", "bits": 2}),
    ({"name": "dorefa", "bits": 3}, {"name": "dorefa", "bits": 3}),
    ("ternary", {"name": "affine", "bits": 5, "symmetric": False}),
]
SETTINGS = [
    {},
    {"bias": False, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 5, "vdim": 7, "batch_first": True},
    {"kdim": 5, "bias": False, "add_zero_attn": True},
]
W4A4 = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}


def inputs(layer, batch=3, queries=4, keys=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(queries, batch, layer.embed_dim), (keys, batch, layer.kdim), (keys, batch, layer.vdim)]
    tensors = [torch.randn(shape, generator=generator) * 2 for shape in shapes]
    return [x.transpose(0, 1).contiguous() if layer.batch_first else x for x in tensors]


def make(family=FAMILIES[0], seed=0, **setting):
    torch.manual_seed(seed)
    layer = lnn.MultiheadAttention(12, 3, weight_quantizer=family[0], input_quantizer=family[1], **setting)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    layer(*inputs(layer, seed=seed))
    return layer


def masks(kind, batch=3, queries=4, keys=6, heads=3):
    generator = torch.Generator().manual_seed(7)
    hidden = torch.rand((batch, keys), generator=generator) < 0.4
    hidden[:, 0] = False
    square = torch.rand((queries, keys), generator=generator) < 0.3
    square[:, 0] = False
    each = torch.rand((batch * heads, queries, keys), generator=generator) < 0.3
    each[..., 0] = False
    floats = torch.randn((queries, keys), generator=generator)
    return {
        "none": {},
        "padding": {"key_padding_mask": hidden},
        "square": {"attn_mask": square},
        "each head": {"attn_mask": each, "key_padding_mask": hidden},
        "floats": {"attn_mask": floats},
        "floats and padding": {"attn_mask": floats, "key_padding_mask": torch.zeros(batch, keys).masked_fill(hidden, -math.inf)},
    }[kind]


KINDS = ["none", "padding", "square", "each head", "floats", "floats and padding"]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_without_quantizers_is_torchs(setting, training):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, **setting)
    torch.manual_seed(0)
    ours = lnn.MultiheadAttention(12, 3, **setting)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for need_weights in (True, False):
        results = []
        for layer in (ours.train(training), theirs.train(training)):
            layer.zero_grad()
            given = [x.requires_grad_() for x in inputs(layer)]
            y, weights = layer(*given, need_weights=need_weights, **masks("padding"))
            y.square().sum().backward()
            with torch.no_grad():
                again = layer(*given, **masks("padding"))[0]  # in eval torch's fast path
            results.append([y, again, *([weights] if need_weights else []), *(x.grad for x in [*given, *layer.parameters()])])
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)


def numbers(quantized):
    return quantized.centred().detach().numpy().astype(np.int64), quantized.scale.detach().numpy().astype(np.float32)


def expected(layer, given, mask=None):
    """Eval from the formulas: integer sums by numpy, one float32 operation after another; PyTorch's softmax of the scores."""
    names = layer.weight_names()
    heads, d = layer.num_heads, layer.head_dim
    coded = [layer.weight_quantizers[name](getattr(layer, name)) for name in names]
    codes = np.concatenate([numbers(q)[0].reshape(-1) for q in coded])
    scales = np.concatenate(
        [np.broadcast_to(numbers(q)[1].reshape(-1), len(getattr(layer, name))) for q, name in zip(coded, names, strict=True)]
    )
    split, at = [], 0
    for width in (layer.embed_dim, layer.kdim, layer.vdim):
        split.append(codes[at : at + layer.embed_dim * width].reshape(layer.embed_dim, width))
        at += layer.embed_dim * width
    parts = []
    for index, place in enumerate(("query", "key", "value")):
        x = given[index] if layer.batch_first else given[index].transpose(0, 1)
        c, s = numbers(layer.input_quantizers[place](x))
        rows = slice(12 * index, 12 * index + 12)
        y = (c @ split[index].T).astype(np.float32) * (s * scales[rows])
        if layer.in_proj_bias is not None:
            y = y + layer.in_proj_bias.detach().numpy()[rows]
        own = {"key": layer.bias_k, "value": layer.bias_v}.get(place)
        if own is not None:
            y = np.concatenate([y, np.repeat(own.detach().numpy(), len(y), 0)], 1)
        if layer.add_zero_attn and place != "query":
            y = np.concatenate([y, np.zeros((len(y), 1, 12), np.float32)], 1)
        c, s = numbers(layer.operand_quantizers[place](torch.from_numpy(y.astype(np.float32))))
        parts.append((c.reshape(*c.shape[:2], heads, d).transpose(0, 2, 1, 3), s))
    (q, s_q), (k, s_k), (v, s_v) = parts
    scores = torch.from_numpy((q @ k.transpose(0, 1, 3, 2)).astype(np.float32) * (s_q * s_k * np.float32(1 / math.sqrt(d))))
    if mask is not None:
        scores = scores + mask
    p = layer.operand_quantizers["probability"](torch.softmax(scores, -1))
    c, s_p = numbers(p)
    y = (c @ v).astype(np.float32) * (s_p * s_v)
    y = torch.from_numpy(np.ascontiguousarray(y.transpose(0, 2, 1, 3).reshape(len(y), -1, 12)))
    c, s = numbers(layer.out_proj.input_quantizer(y))
    w, s_w = numbers(layer.out_proj.quantized_weight())
    y = (c @ w.T).astype(np.float32) * (s * s_w.reshape(-1))
    if layer.out_proj.bias is not None:
        y = y + layer.out_proj.bias.detach().numpy()
    return (y if layer.batch_first else y.transpose(1, 0, 2)), p.values().detach().numpy()


def additive(layer, mask, keys=6, queries=4, batch=3):
    """The masks as one float tensor, by another way: an entry at a time."""
    found = torch.zeros(batch, 3, queries, keys)
    for n, h, i, j in np.ndindex(*found.shape):
        for name, part in mask.items():
            entry = part[n, j] if name == "key_padding_mask" else part[i, j] if part.ndim == 2 else part[n * 3 + h, i, j]
            found[n, h, i, j] += (-math.inf if bool(entry) else 0.0) if part.dtype == torch.bool else float(entry)
    extra = (layer.bias_k is not None) + layer.add_zero_attn
    return F.pad(found, (0, extra))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_eval_is_the_formula_bit_for_bit(family, setting):
    layer = make(family, **setting).eval()
    given = inputs(layer, seed=3)
    for kind in KINDS:
        mask = masks(kind)
        with torch.no_grad():
            y, weights = layer(*given, average_attn_weights=False, **mask)
            short, none = layer(*given, need_weights=False, **mask)
            wanted, p = expected(layer, given, additive(layer, mask) if mask else None)
        assert none is None
        np.testing.assert_array_equal(y.numpy(), wanted, err_msg=kind)
        np.testing.assert_array_equal(weights.numpy(), p, err_msg=kind)
        assert torch.equal(short, y)


@settings(max_examples=25, deadline=None)
@given(family=st.sampled_from(FAMILIES), setting=st.sampled_from(SETTINGS), kind=st.sampled_from(KINDS[:4]), seed=st.integers(0, 2**31))
def test_each_sequence_of_a_batch_is_the_sequence_alone_in_either_layout(family, setting, kind, seed):
    layer = make(family, **setting).eval()
    given, mask = inputs(layer, seed=seed), masks(kind)
    twin = copy.deepcopy(layer)
    twin.batch_first = not layer.batch_first
    with torch.no_grad():
        y, weights = layer(*given, **mask)
        turned, same = twin(*(x.transpose(0, 1) for x in given), **mask)
        assert torch.equal(turned.transpose(0, 1), y)
        assert torch.equal(same, weights)
        for n in range(3):
            own = {name: m[n] if name == "key_padding_mask" else m if m.ndim == 2 else m[3 * n : 3 * n + 3] for name, m in mask.items()}
            alone, of_alone = layer(*(x[n] if layer.batch_first else x[:, n] for x in given), **own)
            torch.testing.assert_close(alone, y[n] if layer.batch_first else y[:, n], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(of_alone, weights[n], rtol=1e-6, atol=1e-6)


def composed(layer, given, mask):
    """The same layer of lobit's Linear layers and PyTorch's attention of floats that codes stand for."""
    y = []
    for index, place in enumerate(("query", "key", "value")):
        x = layer.input_quantizers[place](given[index]).values()
        name = layer.weight_names()[min(index, len(layer.weight_names()) - 1)]
        weight = layer.weight_quantizers[name](getattr(layer, name)).values()
        weight = weight[12 * index : 12 * index + 12] if name == "in_proj_weight" else weight
        projected = F.linear(x, weight, layer.in_proj_bias[12 * index : 12 * index + 12])
        values = layer.operand_quantizers[place](projected).values()
        y.append(values.unflatten(2, (3, 4)).transpose(1, 2))
    q, k, v = y
    p = torch.softmax(q @ k.transpose(-2, -1) / 2.0 + (0 if mask is None else mask), -1)
    p = layer.operand_quantizers["probability"](p).values()
    return layer.out_proj((p @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("setting", [{}, {"kdim": 5, "vdim": 7}])
def test_gradients_are_those_of_the_values_that_codes_stand_for(family, setting, device):
    layer = make(family, batch_first=True, **setting).to(device)
    given = [x.to(device).requires_grad_() for x in inputs(layer, seed=5)]
    mask = masks("each head")
    results = []
    for run in (
        lambda: layer(*given, **{k: m.to(device) for k, m in mask.items()})[0],
        lambda: composed(layer, given, additive(layer, mask).to(device)),
    ):
        y = run()
        leaves = [p for p in layer.parameters() if p.requires_grad] + given
        factors = torch.linspace(-1, 1, y.numel(), device=device).view_as(y)
        results.append([y, *torch.autograd.grad((y * factors).sum(), leaves, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()) + 1e-6)


@pytest.mark.parametrize("held", [Integers(-8, 7), Integers(-255, 255)])
def test_a_product_of_codes_has_the_gradients_of_its_formula(held):
    torch.manual_seed(0)
    a, b = torch.randint(-8, 8, (2, 3, 4, 5)).float(), torch.randint(-8, 8, (2, 3, 5, 6)).float()
    scale, grad = torch.tensor(0.37), torch.randn(2, 3, 4, 6)
    leaves = [x.clone().requires_grad_() for x in (a, b, scale)]
    y = code_product(*leaves, (held, held))
    y.backward(grad)
    a, b, grad = (x.double().numpy() for x in (a, b, grad))
    np.testing.assert_allclose(y.detach().numpy(), a @ b * scale.item(), rtol=1e-6)
    np.testing.assert_allclose(leaves[0].grad.numpy(), grad @ b.swapaxes(-1, -2) * scale.item(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(leaves[1].grad.numpy(), a.swapaxes(-1, -2) @ grad * scale.item(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(leaves[2].grad.item(), (grad * (a @ b)).sum(), rtol=1e-5)


def test_training_keeps_codes_in_bytes_and_no_scores():
    """Of the (N, H, L, S) tensors one is kept in float32, the softmax's result, and one in bytes."""
    torch.manual_seed(0)
    layer = lnn.MultiheadAttention(16, 2, batch_first=True, **W4A4)
    x = torch.randn(2, 64, 16)
    layer(x, x, x)
    kept: dict[int, tuple[torch.dtype, int]] = {}

    def pack(t):
        if t.numel() == 2 * 2 * 64 * 64:
            kept[t.untyped_storage().data_ptr()] = (t.dtype, t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x, x, x, need_weights=False)
    assert sorted(str(dtype) for dtype, _ in kept.values()) == ["torch.float32", "torch.int8"]


def test_operands_take_their_quantizers_from_the_inputs_or_by_name():
    layer = make(({"name": "lsq", "bits": 3}, {"name": "lsq", "bits": 3, "nonnegative": True}))
    assert [str(layer.input_quantizers[place].code_type) for place in ("query", "key", "value")] == ["unsigned3"] * 3
    assert [str(layer.operand_quantizers[place].code_type) for place in ("query", "key", "value")] == ["signed3"] * 3
    assert str(layer.operand_quantizers["probability"].code_type) == "unsigned3"
    assert str(layer.out_proj.input_quantizer.code_type) == "signed3"
    assert {type(q) for q in layer.operand_quantizers.values()} == {Q.LSQ}
    named = lnn.MultiheadAttention(
        12, 3, **W4A4, operand_quantizer={"name": "linear", "bits": 5}, probability_quantizer={"name": "dorefa", "bits": 6}
    )
    assert [str(q.code_type) for q in named.operand_quantizers.values()] == ["signed5"] * 3 + ["unsigned6"]
    floats = lnn.MultiheadAttention(12, 3, **W4A4, operand_quantizer=None, probability_quantizer=None)
    assert not floats.operand_quantizers
    given = Q.CodeDropout(Q.LSQ(4), 0.5)
    dropping = lnn.MultiheadAttention(12, 3, input_quantizer=given)
    assert dropping.input_quantizers["query"] is given
    assert [type(q) for q in dropping.input_quantizers.values()] == [Q.CodeDropout] * 3
    assert [type(q) for q in dropping.operand_quantizers.values()] == [Q.LSQ] * 4


@pytest.mark.parametrize(
    "given",
    [
        {"weight_quantizer": {"name": "lsq", "bits": 4}},
        {"input_quantizer": {"name": "lsq", "bits": 4}},
        {"operand_quantizer": {"name": "lsq", "bits": 4}},
        {"probability_quantizer": {"name": "lsq", "bits": 4}},
        {**W4A4, "input_quantizer": {"name": "lsq_plus", "bits": 4}, "operand_quantizer": {"name": "lsq_plus", "bits": 4}},
        {**W4A4, "gradient_quantizer": {"name": "dorefa", "bits": 6, "stochastic": False}},
        {"gradient_quantizer": {"name": "dorefa", "bits": 6}},
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_any_side_may_stay_float_and_all_that_is_there_gets_a_gradient(given, dropout):
    torch.manual_seed(0)
    layer = lnn.MultiheadAttention(12, 3, dropout=dropout, batch_first=True, **given)
    x = torch.randn(3, 5, 12)
    for _ in range(2):
        layer.zero_grad()
        y, _ = layer(x, x, x, attn_mask=torch.zeros(5, 5))
        y.square().sum().backward()
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0 or "bias" in name, name
    layer.eval()
    assert torch.isfinite(layer(x, x, x)[0]).all()


def test_gradients_of_all_six_sums_are_quantized():
    class Spy(Q.GradientQuantizer):
        def __init__(self):
            super().__init__()
            self.shapes = []

        def forward(self, x):
            self.shapes.append(tuple(x.shape))
            return Q.Quantized(x, torch.ones(()))

    torch.manual_seed(0)
    spy = Spy()
    layer = lnn.MultiheadAttention(12, 3, batch_first=True, **W4A4, gradient_quantizer=spy)
    x = torch.randn(2, 5, 12)
    layer(x, x, x)[0].sum().backward()
    assert sorted(spy.shapes) == sorted([(2, 5, 12)] * 3 + [(2, 3, 5, 5), (2, 3, 5, 4)])
    assert layer.out_proj.gradient_quantizer.shapes == [(2, 5, 12)]


def test_a_query_that_sees_no_key_gets_the_bias_of_what_follows_and_no_nan():
    layer = make(batch_first=True)
    x, hidden = torch.randn(3, 6, 12, requires_grad=True), torch.zeros(3, 6, dtype=torch.bool)
    hidden[1] = True
    for mask in (hidden, torch.zeros(3, 6).masked_fill(hidden, -math.inf)):
        y, weights = layer(x, x, x, key_padding_mask=mask)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert torch.isfinite(gradient).all()
        assert not weights[1].any()
        assert weights[[0, 2]].any()
        zero = layer.out_proj(torch.zeros(1, 12))
        torch.testing.assert_close(y[1], zero.expand(6, 12))


def test_a_causal_mask_hides_what_comes_later():
    layer = make(batch_first=True).eval()
    x = torch.randn(2, 6, 12)
    for mask in (nn.Transformer.generate_square_subsequent_mask(6), torch.ones(6, 6, dtype=torch.bool).triu(1)):
        y, _ = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        short, _ = layer(x[:, :4], x[:, :4], x[:, :4], attn_mask=mask[:4, :4], is_causal=True)
        torch.testing.assert_close(y[:, :4], short, rtol=1e-6, atol=1e-6)


def test_dropout_drops_codes_of_probabilities_in_training_alone():
    torch.manual_seed(0)
    layer = lnn.MultiheadAttention(8, 1, dropout=0.5, batch_first=True, **W4A4)
    x = torch.randn(4, 40, 8)
    with calibrating(layer):
        layer(x, x, x)
    step = layer.operand_quantizers["probability"].step.item()
    _, whole = layer.eval()(x, x, x)
    _, dropped = layer.train()(x, x, x)
    left = dropped != 0
    torch.testing.assert_close(dropped[left], 2 * whole[left])
    torch.testing.assert_close(whole / step, (whole / step).round())
    share = (left & (whole != 0)).sum() / (whole != 0).sum()
    assert abs(float(share) - 0.5) < 0.05


def test_state_comes_back_and_that_of_a_float_layer_starts_quantizers_anew():
    layer, other = make(), make(seed=1)
    other.load_state_dict(layer.state_dict())
    given = inputs(layer)
    assert torch.equal(layer.eval()(*given)[0], other.eval()(*given)[0])
    theirs = nn.MultiheadAttention(12, 3)
    other.load_state_dict(theirs.state_dict())
    with pytest.raises(ConfigError, match="query of a MultiheadAttention of 3 heads.*has not seen data"):
        other(*given)


def test_kept_weight_codes_follow_the_weights():
    layer = make().eval()
    given = inputs(layer)
    with torch.no_grad():
        before = layer(*given)[0]
        assert layer.weight_codes("in_proj_weight").codes is layer.weight_codes("in_proj_weight").codes
        layer.in_proj_weight.mul_(-1)
        assert not torch.equal(layer(*given)[0], before)


def test_long_sums_stay_exact():
    """20000 features of 8 bits pass 2^24 by far, where float32 alone would round again and again."""
    layer = make(({"name": "lsq", "bits": 8}, {"name": "lsq", "bits": 8})).eval()
    generator = torch.Generator().manual_seed(0)
    sides = []
    for place in ("query", "key"):
        step = layer.operand_quantizers[place].step.item()
        sides.append(layer.operand(layer.operand_quantizers, place, step * torch.randint(90, 128, (1, 16, 20000), generator=generator)))
    with torch.no_grad():
        scores = layer.multiply(sides[0], sides[1].mapped(lambda y: y.mT))
    (a, s), (b, t) = (numbers(operand.codes) for operand in sides)
    np.testing.assert_array_equal(scores.numpy(), (a @ b.swapaxes(-1, -2)).astype(np.float32) * (s * t))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer, x: layer(x, x, x[:, :2]), ShapeError, "query, key and value have shapes"),
        (lambda layer, x: layer(x[..., :5], x, x), ShapeError, r"\(N, L, E\)"),
        (lambda layer, x: layer(x, x[:1], x[:1]), ShapeError, "one N for all"),
        (
            lambda layer, x: layer(x, x, x, attn_mask=torch.zeros(4, 4)),
            ShapeError,
            r"attn_mask is bool or floating, of shape \(6, 6\) or \(9, 6, 6\)",
        ),
        (lambda layer, x: layer(x, x, x, key_padding_mask=torch.zeros(3, 6, dtype=torch.int)), ShapeError, "key_padding_mask.*torch.int32"),
        (lambda layer, x: layer(x, x, x, is_causal=True), ConfigError, "attn_mask"),
        (lambda layer, x: layer.half()(x, x, x), ConfigError, "float16"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, error, message):
    layer = make(batch_first=True)
    with pytest.raises(error, match=message):
        call(layer, torch.randn(3, 6, 12))


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_step_is_one_graph_and_the_same(device):
    layer = make(batch_first=True).to(device)
    x, mask = torch.randn(3, 6, 12, device=device), masks("padding")["key_padding_mask"].to(device)
    results = []
    for run in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        y, weights = run(x, x, x, key_padding_mask=mask)
        (y.square().sum() + weights.sum()).backward()
        results.append([y, weights, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 10
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))


@pytest.mark.parametrize("device", DEVICES)
def test_a_w4a4_layer_learns_digits_row_by_row_in_bf16_too(device):
    """Rows of a digit are a sequence of 8 tokens; chance is a tenth."""
    data = load_digits()
    images, test = (
        torch.tensor(x, dtype=torch.float32, device=device).view(-1, 8, 8) / 8 - 1 for x in (data.train_images, data.test_images)
    )
    labels = torch.tensor(data.train_labels, device=device)
    for autocast in (False, True):
        torch.manual_seed(0)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.place = nn.Linear(8, 32), nn.Parameter(torch.randn(8, 32) * 0.1)
                self.attention = lnn.MultiheadAttention(32, 4, batch_first=True, **W4A4)
                self.norm, self.out = nn.LayerNorm(32), nn.Linear(32, 10)

            def forward(self, x):
                x = self.embed(x) + self.place
                return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))

        net = Net().to(device)
        adam = torch.optim.Adam(optim.parameter_groups(net, 5e-3))
        for step in range(120):
            batch = slice(step % 20 * 64, step % 20 * 64 + 64)
            adam.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(net(images[batch]).float(), labels[batch])
            loss.backward()
            adam.step()
            optim.clip_latent_weights(net)
        right = (net.eval()(test).argmax(1).cpu() == torch.tensor(data.test_labels)).float().mean()
        assert net.attention.exact
        assert right > 0.75, float(right)
