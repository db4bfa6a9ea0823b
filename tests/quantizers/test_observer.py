"""Streaming statistics: the same for any order and any cut into batches, in fixed memory, and as exact as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lobit import quantizers as Q
from lobit.errors import ConfigError
from lobit.quantizers.observer import BINS
from tests.processes import forked

floats = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
values = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)


def observed(*batches, momentum=None):
    observer = Q.Observer(momentum)
    for batch in batches:
        observer.see(torch.as_tensor(batch))
    return observer


@given(x=values, data=st.data())
def test_order_and_batches_do_not_matter(x, data):
    shuffled = x[data.draw(st.permutations(range(len(x))))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    whole, parts = observed(x), observed(*np.split(shuffled, cuts))
    assert (whole.count, whole.lowest, whole.highest, whole.exponent) == (parts.count, parts.lowest, parts.highest, parts.exponent)
    assert torch.equal(whole.counts, parts.counts)
    torch.testing.assert_close(whole.sums, parts.sums, rtol=1e-12, atol=1e-12 * float(np.abs(x).sum()))


@given(x=values)
def test_the_range_is_exact_and_bins_hold_what_falls_into_them(x):
    observer = observed(x)
    assert (observer.lowest, observer.highest) == (x.min(), x.max())
    assert observer.counts.sum() == observer.count == len(x)
    edges = np.arange(-BINS, BINS + 1) * observer.width
    assert edges[0] <= x.min()
    assert x.max() < edges[-1]
    assert np.abs(x).max() >= edges[-1] / 2 or observer.exponent == -64  # half of a side's bins are used
    np.testing.assert_array_equal(observer.counts.numpy(), np.histogram(x.astype(np.float64), edges)[0])
    sums = np.histogram(x.astype(np.float64), edges, weights=x.astype(np.float64))[0]
    np.testing.assert_allclose(observer.sums.numpy(), sums, rtol=1e-12, atol=1e-12 * np.abs(x).sum())


def test_memory_does_not_grow_with_the_data():
    observer = observed(torch.randn(10), torch.randn(100_000), 1e6 * torch.randn(10))
    assert observer.counts.numel() == observer.sums.numel() == 2 * BINS


def test_values_of_few_levels_are_known_exactly():
    levels = torch.arange(-100, 100) * 0.37
    sample = observed(levels.repeat(5)).sample()
    torch.testing.assert_close(sample.values[0], levels.double(), rtol=1e-15, atol=0)
    assert (sample.counts == 5).all()
    torch.testing.assert_close(sample.magnitude[0], levels.double().abs().mean())


def test_a_moving_average_follows_the_batches():
    observer = observed([0.0, 1.0], [-2.0, 3.0], [4.0], momentum=0.25)
    low, high = 0.0, 1.0
    for batch in ((-2.0, 3.0), (4.0, 4.0)):
        low, high = 0.75 * low + 0.25 * batch[0], 0.75 * high + 0.25 * batch[1]
    sample = observer.sample()
    assert (float(sample.low), float(sample.high)) == (low, high)
    assert (observer.lowest, observer.highest) == (-2.0, 4.0)


def test_an_empty_batch_changes_nothing():
    observer = observed(torch.randn(5))
    before = observer.count, observer.counts.clone()
    observer.see(torch.empty(0, 3))
    assert observer.count == before[0]
    assert torch.equal(observer.counts, before[1])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match="layer 'conv1' holds values that are not finite"):
        Q.Observer().see(torch.tensor([1.0, wrong]), "layer 'conv1'")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_count_as_their_float32(dtype):
    x = torch.randn(100).to(dtype)
    assert torch.equal(observed(x).counts, observed(x.float()).counts)


def test_only_zeros_are_told_from_nothing_and_from_the_smallest():
    assert observed(torch.zeros(3)).only_zeros
    assert not Q.Observer().only_zeros
    assert not observed([0.0, 1e-30]).only_zeros


@settings(max_examples=30)
@given(x=values, percent=st.floats(50.5, 100))
def test_percentiles_are_numpys_to_the_width_of_a_bin(x, percent):
    observer = observed(x)
    fit = Q.Percentile(percent).fit(observer.sample(), Q.Grid(0, 255, offset=True))
    low, high = (np.percentile(x.astype(np.float64), p, method="inverted_cdf") for p in (100 - percent, percent))
    found = float(fit.offset), float(fit.offset + 255 * fit.scale)
    if float(fit.scale) > 2.0**-30:
        np.testing.assert_allclose(found, (low, high), rtol=1e-9, atol=observer.width)


def test_processes_that_join_know_what_one_would(tmp_path):
    parts = [torch.randn(50), 300 * torch.randn(7), torch.empty(0)]

    def join(rank):
        observer = observed(parts[rank])
        observer.join_processes()
        return observer

    whole = observed(*parts)
    for observer in forked(3, join, tmp_path):
        assert (observer.count, observer.lowest, observer.highest, observer.exponent) == (
            whole.count,
            whole.lowest,
            whole.highest,
            whole.exponent,
        )
        assert torch.equal(observer.counts, whole.counts)
        torch.testing.assert_close(observer.sums, whole.sums, rtol=1e-12, atol=1e-12)
