"""Windows: the graph's attributes give the output sizes and the values of PyTorch's own pools and convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from lobit.capture.windows import adaptive_pool_attrs, avg_pool_attrs, conv_attrs, max_pool_attrs
from lobit.format.geometry import window_of
from tests.runtime.nets import Net
from tests.runtime.reference import interpret

SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=SMALL,
    stride=SMALL,
    dilation=SMALL,
    ceil_mode=st.booleans(),
    data=st.data(),
)
def test_max_pools_equal_pytorch_in_floor_and_ceil_mode(
    size: Any, kernel: Any, stride: Any, dilation: Any, ceil_mode: bool, data: Any
) -> None:
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    x = torch.randn(2, 3, *size)
    expected = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    assume(bool(torch.isfinite(expected).all()))  # a window wholly in the padding is refused by the type rule
    net = Net(x=(3, *size))
    net.node("max_pool2d", ("x",), max_pool_attrs(size, kernel, stride, padding, dilation, ceil_mode))
    graph = net.graph()
    assert torch.equal(torch.tensor(interpret(graph, {"x": x.numpy()})[graph.outputs[0]]), expected)


@given(
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), dilation=st.integers(1, 2)
)
def test_same_padding_keeps_the_size_as_pytorch_pads(size: Any, kernel: Any, dilation: int) -> None:
    attrs = conv_attrs(kernel, 1, "same", dilation, 1)
    window = window_of({**attrs, "kernel": list(kernel)})
    assert window.output_size(size) == size
    x, weight = torch.randn(1, 1, *size), torch.randn(1, 1, *kernel)
    top, left, bottom, right = attrs["padding"]
    padded = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, 1, 0, dilation)
    torch.testing.assert_close(padded, F.conv2d(x, weight, None, 1, "same", dilation))


def test_spellings_of_convolutions() -> None:
    assert conv_attrs((3, 5), 2, (1, 2), [1, 3], 4) == {"stride": [2, 2], "padding": [1, 2, 1, 2], "dilation": [1, 3], "groups": 4}
    assert conv_attrs((3, 3), [1], "valid", 1, 1)["padding"] == [0, 0, 0, 0]


def test_pools_without_a_stride_step_by_their_kernel() -> None:
    assert max_pool_attrs((8, 8), [2, 3], [], 0, 1, False)["stride"] == [2, 3]
    assert avg_pool_attrs(2, None, 0, False, True, None) == {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "divisor": 4}
    assert avg_pool_attrs(3, 1, 1, False, False, 7)["divisor"] == 7


@pytest.mark.parametrize(("ceil_mode", "include", "message"), [(True, True, "ceil_mode"), (False, False, "count_include_pad")])
def test_average_pools_with_several_divisors_are_refused(ceil_mode: bool, include: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        avg_pool_attrs(3, 1, 1, ceil_mode, include, None)


def test_adaptive_pools_need_a_size_that_divides() -> None:
    assert adaptive_pool_attrs((6, 8), (3, None)) == {"kernel": [2, 1], "stride": [2, 1], "padding": [0, 0, 0, 0], "divisor": 2}
    assert adaptive_pool_attrs((6, 8), 1)["divisor"] == 48
    with pytest.raises(ValueError, match="divides"):
        adaptive_pool_attrs((7, 8), 3)
