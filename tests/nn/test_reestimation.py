"""Batch-norm statistics estimated anew: what they become, and what stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.errors import ConfigError
from tests.processes import forked

LSQ4 = {"name": "lsq", "bits": 4}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        lnn.Linear(5, 8, weight_quantizer=LSQ4, input_quantizer=LSQ4), lnn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)
    )


def batches(*sizes):
    return list(torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(1)).split(sizes))


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def started():
    model = net()
    lobit.calibrate(model, torch.cat(batches(64)))
    return model.train()


def test_statistics_become_the_average_of_the_batches_weighted_by_their_samples():
    model, data = started(), batches(30, 20, 7)
    model[1].running_mean.fill_(99)
    lobit.reestimate_batch_norm(model, data)
    sums = [model[0].eval()(x).detach().double() for x in data]
    weights = torch.tensor([30.0, 20, 7]).double() / 57
    mean = sum(w * s.mean(0) for w, s in zip(weights, sums, strict=True))
    variance = sum(w * s.var(0) for w, s in zip(weights, sums, strict=True))
    torch.testing.assert_close(model[1].running_mean, mean.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var, variance.float(), rtol=1e-5, atol=1e-6)


def test_one_batch_gives_its_own_statistics_so_that_eval_normalizes_it():
    model, x = started(), torch.cat(batches(200))
    lobit.reestimate_batch_norm(model, x)
    y = model[1].eval()(model[0].eval()(x))
    torch.testing.assert_close(y.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std(0), torch.ones(8), rtol=1e-3, atol=0)


def test_a_shift_based_norm_gets_the_average_of_means_and_inverse_deviations():
    model, data = started(), batches(30, 20, 7)
    model[1] = lnn.ShiftBatchNorm1d(8)
    lobit.reestimate_batch_norm(model, data)
    alone = []
    for x in data:
        norm = lnn.ShiftBatchNorm1d(8, momentum=1.0)
        norm(model[0].eval()(x).detach())
        alone.append(norm)
    for name in ("running_mean", "running_inverse_std"):
        wanted = sum(n / 57 * getattr(norm, name).double() for n, norm in zip((30, 20, 7), alone, strict=True))
        torch.testing.assert_close(getattr(model[1], name), wanted.float(), rtol=1e-5, atol=1e-6)
    assert model[1].momentum == 0.125


def test_a_shift_based_norm_that_no_batch_reaches_is_named():
    model = started()
    model.add_module("aside", lnn.ShiftBatchNorm1d(3))
    model.forward = lambda x: model[1](model[0](x))
    with pytest.raises(ConfigError, match="'aside' saw no data"):
        lobit.reestimate_batch_norm(model, batches(30))
    assert not model.aside._forward_hooks


def test_weights_quantizers_modes_and_momentum_stay():
    model = started()
    model[1].momentum = 0.3
    model[3].eval()
    before, modes = state(model), [module.training for module in model.modules()]
    lobit.reestimate_batch_norm(model, batches(10, 10))
    assert model[1].momentum == 0.3
    assert [module.training for module in model.modules()] == modes
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_dropout_is_off_and_every_batch_norm_counts_from_none():
    results = []
    for _ in range(2):
        model = started()
        lobit.reestimate_batch_norm(model, batches(16, 16))
        results.append(state(model))
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())
    assert results[0]["1.num_batches_tracked"] == 2


class Unreached(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.other = nn.BatchNorm1d(5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (nn.Sequential(nn.Linear(5, 2)), batches(4), "no batch norm"),
        (nn.Sequential(nn.BatchNorm1d(5, track_running_stats=False)), batches(4), "no batch norm"),
        (nn.Sequential(nn.BatchNorm1d(5)), [], "empty"),
        (Unreached(), batches(4), "'other' saw no data"),
    ],
)
def test_what_cannot_be_estimated_is_refused_and_statistics_stay(model, data, message):
    before = state(model)
    momenta = [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    with pytest.raises(ConfigError, match=message):
        lobit.reestimate_batch_norm(model, data)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)] == momenta
    assert model.training


def test_a_failing_batch_leaves_the_statistics_as_they_were():
    model = started()
    before = state(model)
    with pytest.raises(RuntimeError):
        lobit.reestimate_batch_norm(model, [*batches(8), torch.randn(4, 99)])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[1].momentum == 0.1


def test_processes_average_over_the_data_of_all(tmp_path):
    data = batches(12, 12, 6)

    def work(rank):
        model = started_alone()
        lobit.reestimate_batch_norm(model, data[:1] if rank == 0 else data[1:])
        return state(model)

    alone = started_alone()
    lobit.reestimate_batch_norm(alone, data)
    for found in forked(2, work, tmp_path):
        for key in ("1.running_mean", "1.running_var"):
            torch.testing.assert_close(found[key], alone.state_dict()[key], rtol=1e-5, atol=1e-6)


def started_alone():
    """A net whose quantizers need no data of a distributed run."""
    torch.manual_seed(0)
    return nn.Sequential(lnn.Linear(5, 8, weight_quantizer="sign", input_quantizer={"name": "linear", "bits": 8}), lnn.BatchNorm1d(8))


class Twice(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x) + self.norm(3 * x + 1)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, lnn.ShiftBatchNorm1d])
def test_a_norm_that_runs_twice_averages_over_its_calls(kind):
    model, data = Twice(kind(5)), batches(30, 20, 7)
    lobit.reestimate_batch_norm(model, data)
    for name, buffer in model.norm.named_buffers():
        if not buffer.is_floating_point():
            continue
        wanted = 0.0
        for x in data:
            for each in (x, 3 * x + 1):
                alone = kind(5, momentum=1.0)
                alone(each)
                wanted = wanted + len(x) / (2 * 57) * getattr(alone, name).double()
        torch.testing.assert_close(buffer, wanted.float(), rtol=1e-5, atol=1e-6)


class Sometimes(nn.Module):
    """Its norm sees only the large batches."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(x) if len(x) > 10 else x


def test_a_norm_that_some_batches_pass_by_averages_over_the_others():
    model, data = Sometimes(), batches(7, 30, 20)
    lobit.reestimate_batch_norm(model, data)
    wanted = (30 * data[1].double().mean(0) + 20 * data[2].double().mean(0)) / 50
    torch.testing.assert_close(model.norm.running_mean, wanted.float(), rtol=1e-5, atol=1e-6)
