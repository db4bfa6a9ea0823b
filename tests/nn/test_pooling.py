"""Average pooling in one order of summation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import nn as lnn
from lobit.errors import ConfigError, ShapeError


def by_loops(x, kernel, stride, padding, divisor):
    """The definition: one output at a time, taps in raster order, float32 after each operation."""
    padded = np.pad(x, [(0, 0), (0, 0), *((pad, pad) for pad in padding)])
    counts = [(n - k) // s + 1 for n, k, s in zip(padded.shape[2:], kernel, stride, strict=True)]
    y = np.zeros((*x.shape[:2], *counts), np.float32)
    for place in np.ndindex(*counts):
        for tap in np.ndindex(*kernel):
            at = tuple(p * s + t for p, s, t in zip(place, stride, tap, strict=True))
            y[(slice(None), slice(None), *place)] += padded[(slice(None), slice(None), *at)]
    return y / np.float32(divisor)


@settings(max_examples=90, deadline=None)
@given(axes=st.integers(1, 3), seed=st.integers(0, 2**31), data=st.data())
def test_windows_are_summed_in_raster_order_and_divided_once(axes, seed, data):
    kernel, stride = (tuple(data.draw(st.integers(1, 4)) for _ in range(axes)) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in kernel)
    divisor = data.draw(st.none() | st.integers(1, 9)) if axes > 1 else None
    x = torch.randn(2, 3, *(4, 6, 5)[-axes:], generator=torch.Generator().manual_seed(seed))
    settings_ = {} if divisor is None else {"divisor_override": divisor}
    pool = getattr(lnn, f"AvgPool{axes}d")(kernel, stride, padding, **settings_)
    expected = by_loops(x.numpy(), kernel, stride, padding, pool.divisor)
    assert pool.divisor == (divisor or math.prod(kernel))
    layouts = {2: torch.channels_last, 3: torch.channels_last_3d}
    for layout in {torch.contiguous_format, layouts.get(axes, torch.contiguous_format)}:
        np.testing.assert_array_equal(pool(x.to(memory_format=layout)).numpy(), expected)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed))
    y = pool(ours)
    np.testing.assert_array_equal(y.detach().numpy(), expected)  # with a gradient the same
    (y * g).sum().backward()
    (getattr(F, f"avg_pool{axes}d")(theirs, kernel, stride, padding, **settings_) * g).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, (2, 3), (None, 1), (None, None)])
def test_an_adaptive_pool_is_a_pool_of_whole_windows(size):
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lnn.AdaptiveAvgPool2d(size)(x), F.adaptive_avg_pool2d(x, size), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("size", "shape"), [(1, (2, 3, 6)), (3, (3, 6)), (None, (2, 3, 6))])
def test_an_adaptive_pool_of_one_axis_is_too(size, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lnn.AdaptiveAvgPool1d(size)(x), x if size is None else F.adaptive_avg_pool1d(x, size), rtol=1e-6, atol=1e-7)


def test_a_global_pool_is_the_mean_of_each_image_in_one_order():
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = by_loops(x.numpy(), (5, 7), (1, 1), (0, 0), 35)[:, :, 0, 0]
    pool = lnn.GlobalAvgPool2d()
    np.testing.assert_array_equal(pool(x).numpy(), expected)
    np.testing.assert_array_equal(pool(x.to(memory_format=torch.channels_last)).numpy(), expected)
    np.testing.assert_array_equal(pool(x[1]).numpy(), expected[1])
    assert pool(x[:0]).shape == (0, 3)
    v = x.clone().requires_grad_()
    pool(v).sum().backward()
    torch.testing.assert_close(v.grad, torch.full_like(x, 1 / 35))


def test_an_image_without_a_batch_axis_is_pooled_too():
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lnn.AvgPool2d(2)(x), lnn.AvgPool2d(2)(x[None])[0])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_empty_batch_gives_an_empty_result_and_gradient(axes):
    x = torch.zeros(0, 3, *[4] * axes, requires_grad=True)
    y = getattr(lnn, f"AvgPool{axes}d")(2)(x)
    assert y.shape == (0, 3, *[2] * axes)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_compiled_pool_is_one_graph_and_the_same(axes):
    x = torch.randn(2, 3, *[4] * axes, requires_grad=True)
    for pool in (getattr(lnn, f"AvgPool{axes}d")(3, 2, 1), getattr(lnn, f"AdaptiveAvgPool{axes}d")(2)):
        y = torch.compile(pool, backend="aot_eager", fullgraph=True)(x)
        assert torch.equal(y, pool(x))
        torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x), torch.autograd.grad(pool(x).square().sum(), x))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_what_has_no_single_divisor_or_no_window_is_refused(axes):
    pool = getattr(lnn, f"AvgPool{axes}d")
    with pytest.raises(ConfigError, match="count_include_pad"):
        pool(3, padding=1, count_include_pad=False)
    with pytest.raises(ConfigError, match="ceil_mode"):
        pool(3, ceil_mode=True)
    with pytest.raises(ConfigError, match="half the kernel"):
        pool(2, padding=2)
    pool(3, count_include_pad=False)  # without padding it means nothing
    with pytest.raises(ShapeError, match="at least its size, not"):
        pool(5)(torch.zeros(1, 3, *[4] * axes))
    with pytest.raises(ShapeError, match="at least its size, not"):
        pool(2)(torch.zeros(*[4] * (axes + 3)))
