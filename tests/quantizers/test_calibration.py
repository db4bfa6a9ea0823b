"""Calibration: what each method promises of its choice, and what `calibrate` does to a model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lobit
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.quantizers.search import COARSE, RATIOS
from tests.processes import forked

LSQ4 = {"name": "lsq", "bits": 4}
GRIDS = [
    Q.Grid(0, 15),
    Q.Grid(-8, 7),
    Q.Grid(0, 1),
    Q.Grid(0, 15, zero=True),
    Q.Grid(-4, 3, zero=True),
    Q.Grid(0, 7, offset=True),
    Q.Grid(0, 1, offset=True),
]
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)
samples = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 30)), elements=st.floats(-100, 100, width=32))


def values_of(fit, x, grid):
    """What a grid makes of rows, in numpy."""
    scale, zero, offset = (part.numpy()[:, None] for part in fit)
    codes = np.clip(np.rint((x - offset) / scale), grid.lo - zero, grid.hi - zero)
    return codes * scale + offset


def error_of(fit, x, grid):
    return np.square(values_of(fit, x, grid) - x).sum(1)


@grids
@given(x=samples)
def test_min_max_covers_all_that_was_seen(grid, x):
    if grid.lo == 0 and not (grid.zero or grid.offset):
        x = np.abs(x)  # what codes without a sign can cover
    fit = Q.MinMax().fit(Q.Sample.of_rows(torch.tensor(x)), grid)
    scale, zero, offset = (part.numpy()[:, None] for part in fit)
    half = scale * (0.5 + 1e-9)  # a zero is rounded to a code, so an end may lie half a step beyond the last level
    slack = half if grid.zero else scale * 1e-6
    assert (scale * (grid.lo - zero) + offset <= x + slack).all()
    assert (scale * (grid.hi - zero) + offset >= x - slack).all()
    assert (np.abs(values_of(fit, x, grid) - x) <= np.maximum(half, slack)).all()


@grids
@settings(max_examples=40)
@given(x=samples)
def test_the_least_squared_error_is_no_worse_than_any_range_that_was_tried(grid, x):
    fit = Q.MeanSquaredError().fit(Q.Sample.of_rows(torch.tensor(x)), grid)
    found = error_of(fit, x, grid)
    low, high = (torch.tensor(end) for end in (x.min(1), x.max(1)))
    tried = [(ratio, ratio) for ratio in RATIOS] if not (grid.zero or grid.offset) else [(a, b) for a in COARSE for b in COARSE]
    middle = torch.tensor(x.mean(1)) if grid.offset else torch.zeros(len(x), dtype=torch.float64)
    if grid.zero and (x.min() >= 0 or x.max() <= 0):
        tried = [(ratio, ratio) for ratio in RATIOS]
    for below, above in [(1, 1), *tried[:: max(1, len(tried) // 40)]]:
        other = Q.MinMax().fit(Q.Sample(torch.tensor(x), None, middle - (middle - low) * below, middle + (high - middle) * above), grid)
        assert (found <= error_of(other, x, grid) * (1 + 1e-9) + 1e-12).all()


def test_levels_that_the_data_have_are_found_without_error():
    levels = 0.37 * torch.arange(-8, 8).double()
    fit = Q.MeanSquaredError().fit(Q.Sample.of_rows(levels.repeat(1, 9)), Q.Grid(-8, 7))
    assert float(fit.scale) == pytest.approx(0.37, rel=1e-9)
    shifted = levels[None, :4] - 11
    fit = Q.MeanSquaredError().fit(Q.Sample.of_rows(shifted), Q.Grid(0, 3, offset=True))
    assert (float(fit.scale), float(fit.offset)) == (pytest.approx(0.37, rel=1e-9), pytest.approx(-8 * 0.37 - 11, rel=1e-9))


@grids
def test_rows_are_fitted_each_by_itself_however_many_there_are(grid):
    x = torch.randn(9, 70, generator=torch.Generator().manual_seed(0)).double() * torch.logspace(-3, 3, 9).double()[:, None]
    for method in (Q.MinMax(), Q.Percentile(95), Q.MeanSquaredError()):
        whole = method.fit(Q.Sample.of_rows(x), grid)
        for row in range(len(x)):
            alone = method.fit(Q.Sample.of_rows(x[row : row + 1]), grid)
            for one, all_of in zip(alone, whole, strict=True):
                torch.testing.assert_close(one[0], all_of[row], rtol=1e-12, atol=0)


def test_many_rows_are_searched_in_parts(monkeypatch):
    x = torch.randn(10, 33, generator=torch.Generator().manual_seed(1))
    whole = Q.MeanSquaredError().fit(Q.Sample.of_rows(x), Q.Grid(-4, 3))
    monkeypatch.setattr("lobit.quantizers.search._AT_ONCE", 100)
    parts = Q.MeanSquaredError().fit(Q.Sample.of_rows(x), Q.Grid(-4, 3))
    assert torch.equal(parts.scale, whole.scale)


def test_an_outlier_is_clipped_by_percentile_and_by_squared_error_and_not_by_min_max():
    x = torch.cat([torch.randn(100_000, generator=torch.Generator().manual_seed(2)), torch.tensor([300.0])])
    observer = Q.Observer()
    observer.see(x)
    grid = Q.Grid(-8, 7)
    scales = {type(m).__name__: float(m.fit(observer.sample(), grid).scale) for m in (Q.MinMax(), Q.Percentile(99.9), Q.MeanSquaredError())}
    assert scales["MinMax"] == pytest.approx(300 / 7)
    assert scales["Percentile"] == pytest.approx(np.percentile(x.abs().numpy(), 99.9) / 7, abs=2 * observer.width)
    assert 0.2 < scales["MeanSquaredError"] < 10


def test_min_max_with_momentum_averages_the_ranges_of_batches():
    net = nn.Sequential(lnn.Linear(2, 2, weight_quantizer=LSQ4, input_quantizer={"name": "affine", "bits": 8}))
    lobit.calibrate(net, [torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 3.0]])], method=Q.MinMax(momentum=0.5))
    assert net[0].input_quantizer.scale.item() == pytest.approx(2 / 255)


@pytest.mark.parametrize(("make", "message"), [(lambda: Q.MinMax(0), "momentum"), (lambda: Q.MinMax(1.5), "momentum"), (lambda: Q.Percentile(50), "percent"), (lambda: Q.Percentile(101), "percent")])  # fmt: skip
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def small_net(inputs=LSQ4, weights=LSQ4, batch_norm=True):
    torch.manual_seed(0)
    quantizers = {"weight_quantizer": weights, "input_quantizer": inputs}
    norm = [lnn.BatchNorm2d(6)] if batch_norm else []
    return nn.Sequential(
        lnn.Conv2d(3, 6, 3, padding=1, **quantizers), *norm, nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), lnn.Linear(6 * 16, 5, **quantizers)
    )


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


INPUTS = ["lsq", "lsq_plus", "pact", "affine"]


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("method", ["mse", "min-max", "percentile", Q.Percentile(99)])
def test_one_pass_over_batches_is_one_batch_in_any_order(name, method):
    x = torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole, parts = small_net({"name": name, "bits": 4}), small_net({"name": name, "bits": 4})
    lobit.calibrate(whole, x, method=method)
    lobit.calibrate(parts, [x[17:], x[3:17], x[:3]], method=method)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-4, atol=1e-6, msg=key)  # the layers' own float sums differ
    # the first quantizer sees the very same values
    assert same(state(parts[0].input_quantizer), state(whole[0].input_quantizer))


@pytest.mark.parametrize("name", INPUTS)
def test_a_better_range_means_a_smaller_error_of_the_output(name):
    x = nn.functional.silu(2 * torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(2)))
    x[0, 0, 0, 0] = 60.0
    reference = small_net(None, None).eval()
    errors = {}
    for method in ("mse", "min-max"):
        net = small_net({"name": name, "bits": 4}, {"name": "lsq", "bits": 8})
        lobit.calibrate(net, x, method=method)
        errors[method] = (net.eval()(x[1:]) - reference(x[1:])).square().mean().item()
    assert errors["mse"] < errors["min-max"]


def test_everything_but_the_quantizers_stays_as_it_was():
    net = small_net().train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    before = state(net)
    lobit.calibrate(net, torch.randn(8, 3, 4, 4))
    assert [module.training for module in net.modules()] == modes
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all("quantizer" in key for key in changed)
    assert all(parameter.grad is None for parameter in net.parameters())
    net.eval()(torch.randn(2, 3, 4, 4))


def test_weights_take_a_step_for_each_channel_by_least_squares():
    net = small_net()
    lobit.calibrate(net, torch.randn(8, 3, 4, 4))
    weight, step = net[0].weight.detach().double(), net[0].weight_quantizer.step.detach().double()
    for channel in range(6):
        row = weight[channel].flatten().numpy()

        def error(s, row=row):
            return np.square(np.clip(np.rint(row / s), -8, 7) * s - row).sum()

        found = error(step[channel].item())
        assert found <= min(error(max(row.max() / 7, row.min() / -8) * ratio) for ratio in RATIOS) * (1 + 1e-5)
        assert found < error(2 * np.abs(row).mean() / np.sqrt(7))


def test_kept_weight_codes_are_made_anew():
    net = small_net().eval()
    with Q.calibrating(net):
        net(torch.randn(4, 3, 4, 4))
    with torch.no_grad():
        before = net[0].quantized_weight().scale.clone()
        lobit.calibrate(net, torch.randn(8, 3, 4, 4), weights="min-max")
        after = net[0].quantized_weight().scale
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, net[0].weight_quantizer.step.detach(), rtol=0, atol=0)


def test_weights_none_leaves_theirs_alone():
    net = small_net()
    before = state(net[0].weight_quantizer)
    lobit.calibrate(net, torch.randn(8, 3, 4, 4), weights=None)
    assert same(state(net[0].weight_quantizer), before)
    assert net[0].input_quantizer.has_started


def test_calibrating_again_chooses_anew():
    net = small_net()
    lobit.calibrate(net, 100 * torch.randn(8, 3, 4, 4))
    wide = net[0].input_quantizer.step.item()
    lobit.calibrate(net, torch.rand(8, 3, 4, 4))
    assert net[0].input_quantizer.step.item() < wide / 50
    assert str(net[0].input_quantizer.code_type) == "unsigned4"


def test_a_forced_sign_stays():
    net = small_net({**LSQ4, "nonnegative": False})
    lobit.calibrate(net, torch.rand(8, 3, 4, 4))
    assert str(net[0].input_quantizer.code_type) == "signed4"


def test_fixed_quantizers_quantize_while_others_observe():
    net = nn.Sequential(
        lnn.Linear(4, 4, weight_quantizer="sign", input_quantizer="sign"),
        lnn.Linear(4, 2, weight_quantizer="sign", input_quantizer={"name": "affine", "bits": 8}),
    )
    x = torch.randn(16, 4)
    lobit.calibrate(net, x, method="min-max")
    seen = net[0].eval()(x)
    low, high = min(0.0, seen.min().item()), max(0.0, seen.max().item())
    assert net[1].input_quantizer.scale.item() == pytest.approx((high - low) / 255)


class TwoInputs(nn.Module):
    """Needs two tensors, may take a third."""

    def __init__(self):
        super().__init__()
        self.layer = lnn.Linear(3, 2, weight_quantizer=LSQ4, input_quantizer=LSQ4)

    def forward(self, a, b, scale=None):
        return self.layer(a + b if scale is None else scale)


X = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))
FORMS = {
    "tensor": (nn.Linear, X),
    "list": (nn.Linear, [X[:8], X[8:]]),
    "pairs": (nn.Linear, [(X[:8], torch.zeros(8)), [X[8:], "labels"]]),
    "loader": (nn.Linear, DataLoader(TensorDataset(X, torch.arange(20)), 6)),
    "generator": (nn.Linear, (X[i : i + 5] for i in range(0, 20, 5))),
    "one batch of two inputs": (TwoInputs, (X, 0 * X)),
    "batches of two inputs and a label": (TwoInputs, [(X, 0 * X, "label")]),
    "mappings": (TwoInputs, [{"a": X, "b": 0 * X, "labels": torch.zeros(20)}]),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_in_every_form(form):
    kind, batches = FORMS[form]
    net = TwoInputs() if kind is TwoInputs else nn.Sequential(lnn.Linear(3, 2, weight_quantizer=LSQ4, input_quantizer=LSQ4))
    lobit.calibrate(net, batches, method="min-max")
    quantizer = next(module for module in net.modules() if isinstance(module, Q.LSQ))
    assert quantizer.step.item() == pytest.approx(max(X.max().item() / 7, -X.min().item() / 8))


def test_progress_is_told_and_nothing_is_printed(capsys):
    told = []
    loader = DataLoader(TensorDataset(torch.randn(20, 3, 4, 4), torch.arange(20)), 8)
    lobit.calibrate(small_net(), loader, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    lobit.calibrate(small_net(), iter([torch.randn(2, 3, 4, 4)]), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, None)]
    assert capsys.readouterr() == ("", "")


class Unreached(nn.Module):
    """A layer that no batch reaches, and one that sees only zeros."""

    def __init__(self, dead):
        super().__init__()
        self.used = lnn.Linear(3, 3, weight_quantizer=LSQ4, input_quantizer=LSQ4)
        self.other = nn.ModuleList([lnn.Linear(3, 3, weight_quantizer=LSQ4, input_quantizer=Q.CodeDropout(Q.LSQ(4), 0.1))])
        self.dead = dead

    def forward(self, x):
        y = self.used(x)
        return self.other[0](0 * y) if self.dead else y


@pytest.mark.parametrize(("dead", "message"), [(False, r"layer 'other.0' saw no data"), (True, r"layer 'other.0' saw nothing but zeros")])
def test_a_layer_that_saw_nothing_is_named_and_no_activation_is_changed(dead, message):
    net = Unreached(dead)
    before = state(net.used.input_quantizer)
    with pytest.raises(ConfigError, match=message):
        lobit.calibrate(net, X)
    assert same(state(net.used.input_quantizer), before)
    assert all(getattr(module, "observer", None) is None for module in net.modules())
    assert all(getattr(module, "method", None) is None for module in net.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "empty"),
        ({"batches": 3}, "must be a tensor"),
        ({"batches": ["text"]}, "no tensor"),
        ({"method": "entropy"}, "choose one of min-max, percentile, mse"),
        ({"weights": 3}, "no method of calibration"),
        ({"batches": torch.full((2, 3, 4, 4), torch.nan)}, "not finite"),
    ],
)
def test_what_is_wrong_is_said_and_modes_and_state_stay(arguments, message):
    net = small_net(weights="sign").train()
    before = state(net)
    with pytest.raises(ConfigError, match=message):
        lobit.calibrate(net, **{"batches": torch.randn(2, 3, 4, 4), **arguments})
    assert same(state(net), before)
    assert net.training
    net(torch.randn(2, 3, 4, 4))


def test_a_float_model_is_refused():
    with pytest.raises(ConfigError, match="quantize_"):
        lobit.calibrate(nn.Sequential(nn.Linear(3, 2)), X)


def test_a_failure_of_the_model_itself_passes_on_and_leaves_nothing_behind():
    net = small_net()
    with pytest.raises(RuntimeError):
        lobit.calibrate(net, [torch.randn(2, 3, 4, 4), torch.randn(2, 9, 4, 4)])
    assert net.training
    net(torch.randn(4, 3, 4, 4))  # quantizes, and starts, as if nothing had been
    assert net[0].input_quantizer.has_started


def test_processes_choose_for_the_data_of_all(tmp_path):
    x = torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(4))

    def work(rank):
        net = small_net(batch_norm=False)
        lobit.calibrate(net, x[:7] if rank == 0 else x[7:])
        return state(net)

    alone = small_net(batch_norm=False)
    lobit.calibrate(alone, x)
    first, second = forked(2, work, tmp_path)
    assert same(first, second)
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_a_calibrated_model_is_copied_saved_and_loaded_with_its_ranges():
    net = small_net({"name": "affine", "bits": 4}, {"name": "affine", "bits": 4, "symmetric": False})
    x = torch.randn(8, 3, 4, 4)
    lobit.calibrate(net, x)
    wanted = net.eval()(x)
    fresh = small_net({"name": "affine", "bits": 4}, {"name": "affine", "bits": 4, "symmetric": False})
    fresh.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(x), wanted)
    assert torch.equal(copy.deepcopy(net)(x), wanted)
    float_net = small_net(None, None)
    net.load_state_dict(float_net.state_dict(), strict=True)  # weights of a float model: quantizers forget
    with pytest.raises(ConfigError, match="not seen data"):
        net(x)


def test_a_wrapper_that_takes_anything_is_asked_for_its_model():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs, **keywords):
            return self.module(*inputs, **keywords)

    net = Wrapper(TwoInputs())
    lobit.calibrate(net, [(X, 0 * X, "label")])
    assert net.module.layer.input_quantizer.has_started


def test_a_model_whose_quantizers_need_no_data_is_told_so():
    net = nn.Sequential(nn.Linear(4, 4))
    lobit.quantize_(net, {"bits": "W2A2", "weights": "dorefa", "activations": "dorefa"}, first=None, last=None)
    with pytest.raises(ConfigError, match="none of the model's quantizers takes its range from data; they are ready"):
        lobit.calibrate(net, [torch.randn(2, 4)])
