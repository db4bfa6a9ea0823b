"""Gradients of recurrent layers: against fake quantization that autograd differentiates by itself, and the written-out backward pass against the plain path."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.bits import Alphabet, CodeType
from lobit.nn import recurrent_quantizers
from lobit.nn.recurrence import walk
from tests.nn.test_recurrent import FAMILIES, KINDS, make, pair_of_states, tensors

UNIFORM = [
    FAMILIES[0],
    FAMILIES[1],
    ("magnitude_sign", {"name": "lsq", "bits": 2}),
    FAMILIES[3],
    FAMILIES[2],
    FAMILIES[5],
    (None, {"name": "lsq", "bits": 4}),
    (FAMILIES[0][0], None),
]


class Coarse(Q.GradientQuantizer):
    """Gradients in steps of 1/64 of the largest of each row, without chance."""

    code_type = CodeType(Alphabet.SIGNED, 8)

    def __init__(self, inputs_only):
        super().__init__()
        self.inputs_only = inputs_only

    def forward(self, g):
        scale = (g.abs().amax(1, keepdim=True) / 64).clamp(min=1e-30)
        return Q.Quantized((g / scale).round(), scale, 0)


def gradients(layer, x, state, weights):
    """Gradients of parameters, input and states under a loss that weighs every output."""
    layer.zero_grad()
    xs = [x.data if isinstance(x, torch.nn.utils.rnn.PackedSequence) else x, *(state if isinstance(state, tuple) else [state])]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in xs]
    given = x._replace(data=leaves[0]) if isinstance(x, torch.nn.utils.rnn.PackedSequence) else leaves[0]
    output, *states = tensors(layer(given, tuple(leaves[1:]) if isinstance(state, tuple) else leaves[1]))
    flat = torch.cat([(output.data if hasattr(output, "batch_sizes") else output).flatten(), *(s.flatten() for s in states)])
    (flat * weights[: len(flat)].to(flat)).sum().backward()
    found = {name: p.grad for name, p in layer.named_parameters()}
    found.update({f"input {n}": leaf.grad for n, leaf in enumerate(leaves)})
    assert all(grad is None or torch.isfinite(grad).all() for grad in found.values())
    return flat.detach(), {name: None if grad is None else grad.clone() for name, grad in found.items()}


def agree(a, b, rtol, atol):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name] is None) == (b[name] is None), name
        if a[name] is not None:
            torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def fake(quantizer, x):
    return x if quantizer is None else quantizer(x).values()


def grid(v):
    inside = v.clamp(-8, 127 / 16)
    return inside + ((v * 16).clamp(-128, 127).round() / 16 - inside).detach()


def fake_quantized(layer, x, h, c):
    """A layer of one direction by fake quantization: floats of quantized values, PyTorch's sigmoid and tanh, no codes."""
    w_ih, w_hh = (fake(layer._weight_quantizer(name), getattr(layer, name)) for name in ("weight_ih_l0", "weight_hh_l0"))
    source = layer.input_quantizers["input_l0"] if layer.input_quantizers else None
    hidden = layer.hidden_quantizers["hidden_l0"] if layer.hidden_quantizers else None
    rows = fake(source, x.reshape(-1, x.shape[-1])).reshape(x.shape)
    outputs = []
    for row in rows:
        a, b = row @ w_ih.t() + layer.bias_ih_l0, fake(hidden, h) @ w_hh.t() + layer.bias_hh_l0
        if layer.kind == "lstm":
            i, f, g, o = grid(a + b).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * grid(c).tanh()
        elif layer.kind == "gru":
            (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
            r, z, n = grid(ar + br).sigmoid(), grid(az + bz).sigmoid(), None
            n = grid(an + r * bn).tanh()
            h = (1 - z) * n + z * h
        else:
            h = grid(a + b).tanh() if layer.kind == "tanh" else grid(a + b).relu()
        outputs.append(h)
    return torch.stack(outputs), h, c


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [*UNIFORM, ("sign", "approx_sign"), ("sign", {"name": "sign", "gradient": "swish"})])
def test_gradients_are_those_of_fake_quantization(kind, family):
    layer = make(kind, family).train().double()
    other = copy.deepcopy(layer)
    x = torch.randn(6, 4, 5, dtype=torch.float64) * 2
    state = pair_of_states(layer, 4)[2]
    state = tuple(s.double() for s in state) if kind == "lstm" else state.double()
    weights = torch.randn(1000)
    value, found = gradients(layer, x, state, weights)
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (x, *(state if kind == "lstm" else [state]))]
    output, h_n, c_n = fake_quantized(other, leaves[0], leaves[1][0], leaves[2][0] if kind == "lstm" else None)
    flat = torch.cat([output.flatten(), h_n.flatten(), *([c_n.flatten()] if kind == "lstm" else [])])
    torch.testing.assert_close(value, flat, rtol=1e-6, atol=1e-6)
    (flat * weights[: len(flat)]).sum().backward()
    expected = {name: p.grad for name, p in other.named_parameters()} | {f"input {n}": leaf.grad for n, leaf in enumerate(leaves)}
    agree(found, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", UNIFORM)
@pytest.mark.parametrize("quantized_gradients", [None, False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_the_written_out_backward_pass_is_the_plain_paths(kind, family, quantized_gradients, packed, monkeypatch):
    layer = make(kind, family, num_layers=2, bidirectional=True).train().double()
    if quantized_gradients is not None:
        layer.gradient_quantizer = Coarse(quantized_gradients)
    torch.manual_seed(1)
    x = [torch.randn(n, 5, dtype=torch.float64) * 2 for n in (3, 7, 6, 1)]
    x = pack_sequence(x, enforce_sorted=False) if packed else torch.randn(7, 4, 5, dtype=torch.float64)
    *_, state = pair_of_states(layer, 4)
    state = tuple(s.double() for s in state) if kind == "lstm" else state.double()
    weights = torch.randn(2000)
    calls = []
    value, found = gradients(layer, x, state, weights)
    monkeypatch.setattr(recurrent_quantizers, "recur", lambda *given: calls.append(1) or walk(*given))
    plain_value, plain = gradients(layer, x, state, weights)
    assert len(calls) == 4
    assert torch.equal(value, plain_value)
    exactness = 2e-6 if family[0] == "magnitude_sign" else 1e-9  # its scales are float32 even here
    agree(found, plain, exactness, exactness)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[3], (None, FAMILIES[0][1]), (FAMILIES[0][0], None)])
def test_gradients_of_large_float32_layers_are_the_plain_paths(kind, family, monkeypatch):
    """Large enough for the native loops."""
    layer = make(kind, family, 80, 72).train()
    x = torch.randn(17, 6, 80)
    state = pair_of_states(layer, 6)[2]
    weights = torch.randn(20000)
    value, found = gradients(layer, x, state, weights)
    monkeypatch.setattr(recurrent_quantizers, "recur", walk)
    plain_value, plain = gradients(layer, x, state, weights)
    assert torch.equal(value, plain_value)
    for name, grad in plain.items():
        size = grad.abs().max() + 1e-6
        torch.testing.assert_close(found[name] / size, grad / size, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", Q.names("gradients"))
@pytest.mark.parametrize("inputs_only", [False, True])
def test_every_gradient_quantizer_gives_the_gradient_in_the_mean(kind, name, inputs_only):
    layer = make(kind, FAMILIES[3]).train()
    x = torch.randn(3, 2, 5)
    (layer(x)[0] ** 2).sum().backward()
    expected = layer.weight_ih_l0.grad.clone()
    layer.gradient_quantizer = Q.get({"name": name, "bits": 6, "inputs_only": inputs_only}, "gradients")
    layer.zero_grad()
    runs = 200
    for _ in range(runs):
        (layer(x)[0] ** 2).sum().backward()
    assert (layer.weight_ih_l0.grad / runs - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_gradients_may_be_asked_for(kind):
    layer = make(kind, FAMILIES[0]).train()
    x = torch.randn(4, 3, 5)
    layer(x)[0].sum().backward()
    whole = {name: p.grad.clone() for name, p in layer.named_parameters()}
    for chosen in whole:
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name == chosen)
            parameter.grad = None
        layer(x)[0].sum().backward()
        for name, parameter in layer.named_parameters():
            assert (parameter.grad is not None) == (name == chosen)
        torch.testing.assert_close(dict(layer.named_parameters())[chosen].grad, whole[chosen], rtol=1e-5, atol=1e-6)
    last = layer.requires_grad_(True)(x)[1]
    (last[1] if kind == "lstm" else last).sum().backward()  # the output itself unused
    assert layer.weight_ih_l0.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_other_quantizers_of_hidden_states_learn_by_the_plain_path(kind):
    hidden = Q.CodeDropout(Q.LSQ(4, kind == "relu"), 0.3)
    layer = make(kind, FAMILIES[0], hidden_quantizer=hidden).train()
    x = torch.randn(5, 4, 5)
    torch.manual_seed(0)
    first = layer(x)[0]
    first.sum().backward()
    assert hidden.quantizer.step.grad is not None
    assert hidden.quantizer.step.grad != 0
    assert not torch.equal(layer(x)[0], first)
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_backward_twice_gives_the_same_and_twice_the_gradient():
    layer = make("lstm", FAMILIES[0]).train()
    loss = layer(torch.randn(5, 4, 5))[0].square().sum()
    loss.backward(retain_graph=True)
    first = layer.weight_hh_l0.grad.clone()
    loss.backward()
    assert torch.equal(layer.weight_hh_l0.grad, 2 * first)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_gradients_arrive_at_the_weights(kind):
    """With integer inputs and weights whose scale is 1, the gradient of the inputs' weights is a product of codes."""
    layer = make(kind, ("sign", "sign"), bias=False).train()
    layer.gradient_quantizer = Coarse(False)
    given = []
    layer.gradient_quantizer.register_forward_hook(lambda _module, _args, out: given.append(out))
    x = torch.randn(3, 1, 5)
    layer(x)[0].sum().backward()
    assert len(given) == 4  # each step's hidden sums, then the inputs' of all steps
    codes = torch.where(x.reshape(3, 5) >= 0, 1.0, -1.0)
    torch.testing.assert_close(layer.weight_ih_l0.grad, given[-1].values().t() @ codes, rtol=1e-6, atol=1e-6)


def test_a_tiny_text_is_learnt_by_heart_at_two_bits():
    torch.manual_seed(0)
    text = torch.tensor([[ord(letter) % 32 for letter in "what one bit can do, two can do"]]).t()
    embed, head = torch.nn.Embedding(64, 24), torch.nn.Linear(32, 64)
    lstm = lnn.LSTM(
        24, 32, weight_quantizer={"name": "lsq", "bits": 2}, input_quantizer={"name": "lsq", "bits": 2}, gradient_quantizer=None
    )
    optimizer = torch.optim.Adam([p for module in (embed, lstm, head) for p in module.parameters()], 1e-2)
    for _ in range(150):
        logits = head(lstm(embed(text[:-1]))[0]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, text[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == text[1:].flatten()).float().mean() > 0.95
