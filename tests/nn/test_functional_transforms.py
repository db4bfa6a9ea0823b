"""Networks under `torch.func`: a gradient as a function, gradients of each sample at once, and an ensemble of networks as one."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, stack_module_state, vmap

from lobit import nn as lnn
from lobit.convert import quantize_
from lobit.nn.tables import _KEPT
from tests.quantizers.rows import rows

LSQ4 = {"name": "lsq", "bits": 4}
RANDOM = ("stochastic_sign", "stochastic_ternary")
ROWS = [pytest.param(row.role, {"name": row.name, "bits": bits, **row.settings}, id=f"{row}-{bits}") for row in rows() for bits in row.bits]


def net_with(role, quantizer):
    chosen = {"weights": LSQ4, "activations": LSQ4, "gradients": None, role: quantizer}
    layer = lnn.Linear(
        12, 10, weight_quantizer=chosen["weights"], input_quantizer=chosen["activations"], gradient_quantizer=chosen["gradients"]
    )
    return nn.Sequential(nn.Linear(16, 12), nn.LayerNorm(12), layer)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        make = getattr(lnn, kind)
        self.cell = make(6, 5, batch_first=True, weight_quantizer=LSQ4, input_quantizer=LSQ4, hidden_quantizer="sign")
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0].mean(1))


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.encoder(x).mean(1)


def attentive():
    net = Attentive()
    quantize_(net, "W4A4")
    return net


def pictures(policy):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 5)
    )  # fmt: skip
    quantize_(net, policy)
    return net


def state(net):
    return {k: p.detach().clone() for k, p in net.named_parameters()}, {k: b.clone() for k, b in net.named_buffers()}


def weighted_sum(net, buffers):
    """The function of the parameters whose gradient is taken; of some samples, or of one without its axis."""

    def total(parameters, x, g):
        return (functional_call(net, (parameters, buffers), (x,)) * g).sum()

    return total


def check(net, x, *, random=False):
    net(x)
    parameters, buffers = state(net)
    g = torch.randn_like(net(x))
    total = weighted_sum(net, buffers)
    found = grad(total)(parameters, x, g)
    if not random:
        net.zero_grad()
        (net(x) * g).sum().backward()
        for name, p in net.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4, msg=name)
    each = vmap(grad(lambda p, x, g: total(p, x[None], g[None])), (None, 0, 0), randomness="different" if random else "error")(
        parameters, x, g
    )
    for name, stacked in each.items():
        assert stacked.shape == (len(x), *parameters[name].shape)
        assert stacked.isfinite().all()
    if not random:
        for i in range(len(x)):
            alone = grad(total)(parameters, x[i : i + 1], g[i : i + 1])
            for name, stacked in each.items():
                torch.testing.assert_close(stacked[i], alone[name], rtol=1e-4, atol=1e-4, msg=name)
    for name, p in net.named_parameters():  # nothing that only stands for a value was left behind
        assert type(p.detach().add(0)) is torch.Tensor, name
    (net(x) * g).sum().backward()


@pytest.mark.parametrize(("role", "quantizer"), ROWS)
def test_the_gradient_of_every_quantizer_as_a_function_is_that_of_backward_and_each_sample_has_its_own(role, quantizer):
    torch.manual_seed(0)
    net = net_with(role, quantizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if role == "gradients" else "error")  # PyTorch on the speed of clamp_
        check(net, torch.randn(6, 16), random=role == "gradients" or quantizer["name"] in RANDOM)


@pytest.mark.parametrize("policy", ["W1A1", "W2A2", "W4A4", "W8A8"])
def test_a_network_of_pictures_gives_each_its_gradient(policy):
    torch.manual_seed(0)
    check(pictures(policy), torch.randn(5, 3, 10, 10))


@pytest.mark.parametrize("make", [lambda: Recurrent("RNN"), lambda: Recurrent("LSTM"), lambda: Recurrent("GRU"), attentive], ids=["rnn", "lstm", "gru", "attention"])  # fmt: skip
def test_a_network_of_sequences_gives_each_its_gradient(make):
    torch.manual_seed(0)
    net = make()
    check(net, torch.randn(4, 7, 8 if isinstance(net, Attentive) else 6))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("policy", ["W1A1", "W4A4", "W8A8"])
def test_an_ensemble_of_networks_runs_as_one(policy, training):
    torch.manual_seed(0)
    x = torch.randn(5, 3, 10, 10)
    members = [pictures(policy) for _ in range(3)]
    for net in members:
        net(x)
        net.train(training)
    parameters, buffers = stack_module_state(members)
    skeleton = copy.deepcopy(members[0])
    together = vmap(lambda p, b: functional_call(skeleton, (p, b), (x,)))(parameters, buffers)
    for net, y in zip(members, together, strict=True):
        torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("role", "quantizer"), [row for row in ROWS if row.values[0] != "gradients"])
def test_tangents_carried_forward_are_refused_and_never_lost(role, quantizer, training):
    torch.manual_seed(0)
    x, net = torch.randn(6, 16), net_with(role, quantizer)
    net(x)
    net.train(training)
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(net, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        net(forward_ad.make_dual(x, x))


@pytest.mark.parametrize("quantizer", ["affine", "learned_bits", "ttq", "lsq"])
@pytest.mark.parametrize("training", [True, False])
def test_members_of_an_ensemble_have_states_of_their_own(quantizer, training):
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    members = [lnn.Linear(6, 4, weight_quantizer={"name": quantizer, "bits": 2 if quantizer == "ttq" else 4}) for _ in range(3)]
    for net in members:
        net(x)
        net.train(training)
    parameters, buffers = stack_module_state(members)
    skeleton = copy.deepcopy(members[0])
    run = lambda p, b: functional_call(skeleton, (p, b), (x,))  # noqa: E731
    for net, y in zip(members, vmap(run)(parameters, buffers), strict=True):
        torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-4)
    found = vmap(grad(lambda p, b: run(p, b).square().sum()))(parameters, buffers)
    for index, net in enumerate(members):
        net.zero_grad()
        net(x).square().sum().backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(
                found[name][index], torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-4, atol=1e-4, msg=name
            )


def test_what_is_kept_from_a_first_pass_inside_a_transformation_serves_the_passes_after_it():
    torch.manual_seed(0)
    net, x = Recurrent("LSTM"), torch.randn(4, 7, 6)
    net(x)
    state = net.state_dict()
    for training in (False, True):
        _KEPT.clear()
        net = Recurrent("LSTM").train(training)
        net.load_state_dict(state)
        run = lambda x, net=net: net(x).square().sum()  # noqa: E731
        grad(lambda x, run=run: grad(run)(x).square().sum())(x)
        assert grad(run)(x).isfinite().all()
        net(x).sum().backward()


def test_what_is_kept_from_a_first_pass_inside_an_export_of_torchs_serves_the_passes_after_it():
    torch.manual_seed(0)
    net, x = Recurrent("GRU"), torch.randn(4, 7, 6)
    net(x)
    net.eval()
    _KEPT.clear()
    program = torch.export.export(net, (x,))
    with torch.no_grad():
        y = net(x)
        assert torch.equal(program.module()(x), y)
        _KEPT.clear()
        assert torch.equal(net(x), y)
