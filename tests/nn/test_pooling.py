"""Average pooling in one order of summation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import nn as lnn
from lobit.errors import ConfigError, ShapeError

pair = st.tuples(st.integers(1, 4), st.integers(1, 4))


def by_loops(x, kernel, stride, padding, divisor):
    """The definition: one output at a time, taps in raster order, float32 after each operation."""
    n, c, height, width = x.shape
    padded = np.zeros((n, c, height + 2 * padding[0], width + 2 * padding[1]), np.float32)
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    rows, cols = ((padded.shape[axis + 2] - kernel[axis]) // stride[axis] + 1 for axis in (0, 1))
    y = np.zeros((n, c, rows, cols), np.float32)
    for r in range(rows):
        for q in range(cols):
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    y[:, :, r, q] += padded[:, :, r * stride[0] + i, q * stride[1] + j]
    return y / np.float32(divisor)


@settings(max_examples=60)
@given(kernel=pair, stride=pair, seed=st.integers(0, 2**31), data=st.data())
def test_windows_are_summed_in_raster_order_and_divided_once(kernel, stride, seed, data):
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in kernel)
    divisor = data.draw(st.none() | st.integers(1, 9))
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    pool = lnn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)
    expected = by_loops(x.numpy(), kernel, stride, padding, pool.divisor)
    assert pool.divisor == (divisor or kernel[0] * kernel[1])
    for layout in (torch.contiguous_format, torch.channels_last):
        np.testing.assert_array_equal(pool(x.to(memory_format=layout)).numpy(), expected)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed))
    y = pool(ours)
    np.testing.assert_array_equal(y.detach().numpy(), expected)  # with a gradient the same
    (y * g).sum().backward()
    (F.avg_pool2d(theirs, kernel, stride, padding, divisor_override=divisor) * g).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, (2, 3), (None, 1), (None, None)])
def test_an_adaptive_pool_is_a_pool_of_whole_windows(size):
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lnn.AdaptiveAvgPool2d(size)(x), F.adaptive_avg_pool2d(x, size), rtol=1e-6, atol=1e-7)


def test_an_image_without_a_batch_axis_is_pooled_too():
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lnn.AvgPool2d(2)(x), lnn.AvgPool2d(2)(x[None])[0])


def test_an_empty_batch_gives_an_empty_result():
    assert lnn.AvgPool2d(2)(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 2, 2)


def test_what_has_no_single_divisor_or_no_window_is_refused():
    with pytest.raises(ConfigError, match="count_include_pad"):
        lnn.AvgPool2d(3, padding=1, count_include_pad=False)
    with pytest.raises(ConfigError, match="half the kernel"):
        lnn.AvgPool2d(2, padding=2)
    lnn.AvgPool2d(3, count_include_pad=False)  # without padding it means nothing
    with pytest.raises(ShapeError, match=r"\(5, 5\)"):
        lnn.AvgPool2d(5)(torch.zeros(1, 3, 4, 4))
