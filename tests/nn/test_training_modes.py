"""Training as people run it: on a device, under bf16 autocast, compiled, and in several processes."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from lobit import optim
from lobit.convert import quantize_
from lobit.training import QuantizationSchedule
from tests.devices import DEVICES
from tests.processes import spawned

POLICIES = [
    "W1A1",
    "W2A2",
    "W4A4",
    "W8A8",
    {"bits": "W1A1", "weights": "sign", "activations": "sign"},
    {"bits": "W3A3", "weights": "dorefa", "activations": "dorefa"},
    {"bits": "W4A4", "weights": "affine", "activations": "affine"},
    {"bits": "W4A4", "weights": "learned_bits", "activations": "learned_bits"},
]


def make(policy, device="cpu", norm=True):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), *([nn.BatchNorm2d(16)] if norm else []), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Hardtanh(), nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU(), nn.Linear(32, 5),
    ).to(device)  # fmt: skip
    quantize_(net, policy)
    x, labels = torch.rand(16, 3, 8, 8, device=device), torch.randint(5, (16,), device=device)
    net(x)
    return net, x, labels


class Attentive(nn.Module):
    """Rows of a picture as a sequence."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.TransformerEncoderLayer(24, 2, 32, dropout=0.0, batch_first=True), nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.encoder(x.transpose(1, 2).flatten(2)).mean(1))


def of_rows(kind):
    torch.manual_seed(0)
    net = kind()
    quantize_(net, "W4A4")
    x, labels = torch.rand(16, 3, 8, 8), torch.randint(5, (16,))
    net(x)
    return net, x, labels


class Reading(nn.Module):
    """Rows of a picture, read from both ends."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(24, 12, 2, batch_first=True, bidirectional=True), nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.cell(x.transpose(1, 2).flatten(2))[0].mean(1))


def gradients(net, run, x, labels):
    net.zero_grad()
    loss = nn.functional.cross_entropy(run(x).float(), labels)
    loss.backward()
    return loss.item(), {name: p.grad.float().cpu().clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_step_on_any_device_reaches_every_parameter_and_is_that_of_the_cpu(policy, device):
    net, x, labels = make(policy)
    loss, expected = gradients(net, net, x, labels)
    other = copy.deepcopy(net).to(device)
    other_loss, found = gradients(other, other, x.to(device), labels.to(device))
    assert found.keys() == expected.keys()
    assert other_loss == pytest.approx(loss, rel=1e-4)
    assert all(torch.isfinite(g).all() for g in found.values())
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_bf16_autocast_trains(policy, device):
    net, x, labels = make(policy, device)
    adam = torch.optim.Adam(optim.parameter_groups(net, 2e-3))
    losses = []
    for _ in range(30):
        adam.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x).float(), labels)
        loss.backward()
        adam.step()
        optim.clip_latent_weights(net)
        losses.append(loss.item())
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", ["W2A2", POLICIES[4]], ids=str)
def test_a_compiled_net_is_one_graph_with_the_same_gradients(policy, device):
    net, x, labels = make(policy, device)
    _, expected = gradients(net, net, x, labels)
    _, found = gradients(net, torch.compile(net, fullgraph=True), x, labels)
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-4, msg=name)


PARALLEL = [*(partial(make, policy, norm=False) for policy in POLICIES), partial(of_rows, Attentive), partial(of_rows, Reading)]


def _parallel(rank):
    found = []
    for built in PARALLEL:
        net, x, labels = built()
        mine = slice(8 * rank, 8 * rank + 8)
        found.append(gradients(net, nn.parallel.DistributedDataParallel(net), x[mine], labels[mine])[1])
    return found


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(tmp_path):
    processes = spawned(2, _parallel, tmp_path)
    for index, built in enumerate(PARALLEL):
        net, x, labels = built()
        _, expected = gradients(net, net, x, labels)
        for found in (process[index] for process in processes):
            assert found.keys() >= expected.keys()
            for name, g in found.items():  # together, what nothing uses has a gradient of 0
                torch.testing.assert_close(g, expected.get(name, torch.zeros_like(g)), rtol=1e-4, atol=1e-5, msg=f"{built} {name}")


def _signs_after_the_wrapper(rank):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.Hardtanh(), nn.Linear(8, 8), nn.Hardtanh(), nn.Linear(8, 3))
    quantize_(net, "W1A1")
    parallel = nn.parallel.DistributedDataParallel(net)
    for _ in range(3):
        net.zero_grad()
        parallel(torch.randn(4, 8)).square().sum().backward()
    return [p.grad.abs().sum().item() for p in net.parameters()]


def test_an_input_that_turns_out_signed_leaves_no_process_waiting(tmp_path):
    assert all(sum(gradients) > 0 for gradients in spawned(2, _signs_after_the_wrapper, tmp_path))


def _after_zeros(rank):
    torch.manual_seed(0)
    found = {}
    for name in ("lsq", "lsq_plus", "learned_bits", "pact", "affine"):
        net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        quantize_(net, {"bits": "W1A4", "weights": "sign", "activations": name}, first=None, last=None)
        parallel = nn.parallel.DistributedDataParallel(net)
        for step in range(3):
            x = torch.randn(4, 8) * bool(step)
            net.zero_grad()
            parallel(x).square().sum().backward()
        found[name] = [p.grad.abs().sum().item() for p in net.parameters()]
    return found


def test_a_first_batch_of_zeros_leaves_no_process_waiting(tmp_path):
    for found in spawned(2, _after_zeros, tmp_path):
        for name, gradients in found.items():
            assert all(g >= 0 for g in gradients), name
            assert sum(gradients) > 0, name


class Stepping(nn.Module):
    """A cell that takes a step for each row."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(24, 12), nn.Linear(12, 5)

    def forward(self, x):
        state = None
        for row in x.transpose(1, 2).flatten(2).unbind(1):
            state = self.cell(row, state)
        return self.head(state[0])


def _delayed(rank):
    found = []
    for kind in (Reading, Stepping, Attentive):
        net, x, labels = of_rows(kind)
        schedule = QuantizationSchedule(net, {1: "float"})
        parallel = nn.parallel.DistributedDataParallel(net)
        for epoch in range(2):
            schedule.advance(epoch)
            for _ in range(2):
                gradients(net, parallel, x[8 * rank : 8 * rank + 8], labels[8 * rank : 8 * rank + 8])
        found.append([p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters()])
    return found


def test_a_delay_of_quantization_leaves_no_process_waiting(tmp_path):
    assert all(all(all(each) for each in process) for process in spawned(2, _delayed, tmp_path))


def test_attention_trains_and_evaluates_in_float64():
    net, x, labels = of_rows(Attentive)
    net.double()
    loss, found = gradients(net, net, x.double(), labels)
    assert math.isfinite(loss)
    assert all(g.isfinite().all() for g in found.values())
    assert net.eval()(x.double()).dtype == torch.float64
