"""Schedules, optimizers and guards in data-parallel training: no process waits for a gradient, and all stay alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit
from lobit.optim import ShiftAdaMax, clip_latent_weights, parameter_groups, with_bop
from lobit.training import QuantizationSchedule, Starved
from tests.processes import spawned

OPTIMIZERS = {
    "shift-adamax": ("W2A2", {1: "float", 2: "W4A4"}, lambda net: ShiftAdaMax(parameter_groups(net, 2.0**-8))),
    "bop": ("W1A2", {1: "W1A32", 2: "W1A4"}, lambda net: with_bop(net, torch.optim.Adam, gamma=0.1, threshold=1e-4)),
}


def _all_trained(rank):
    return {name: _trained(name, rank) for name in OPTIMIZERS}


def _trained(name, rank):
    """The parameters after four epochs of two steps, through all bits of a schedule."""
    bits, until, make = OPTIMIZERS[name]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    lobit.quantize_(net, bits)
    optimizer, schedule, guard = make(net), QuantizationSchedule(net, until), Starved(net, 2, "error")
    parallel = nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)
    generator = torch.Generator().manual_seed(rank)
    for epoch in range(4):
        schedule.advance(epoch)
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.rand(16, 8, generator=generator)
            nn.functional.cross_entropy(parallel(x), x[:, :3].argmax(1)).backward()
            guard.check()
            optimizer.step()
            clip_latent_weights(net)
    return {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.slow
def test_both_processes_end_with_the_same_parameters(tmp_path):
    found = spawned(2, _all_trained, tmp_path)
    for name in OPTIMIZERS:
        a, b = (process[name] for process in found)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
        assert all(torch.isfinite(value).all() for value in a.values()), name
