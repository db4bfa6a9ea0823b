"""Average pooling with one order of summation: the same floats for every layout and batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError

Size = tuple[int, ...]


def _size(value: int | Sequence[int], axes: int) -> Size:
    """``3`` and ``(3,)`` as ``(3, 3)``."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * axes if len(numbers) == 1 else numbers


def _sum_windows(x: Tensor, kernel: Size, stride: Size, padding: Size) -> Tensor:
    if any(padding):
        x = F.pad(x, [pad for pad in reversed(padding) for _ in range(2)])
    sizes = x.shape[-len(kernel) :]
    counts = [(size - extent) // step + 1 for size, extent, step in zip(sizes, kernel, stride, strict=True)]
    total: Any = None
    for place in itertools.product(*map(range, kernel)):
        ends = [start + (count - 1) * step + 1 for start, count, step in zip(place, counts, stride, strict=True)]
        window: list[Any] = [slice(*axis) for axis in zip(place, ends, stride, strict=True)]
        tap = x[(..., *window)]
        total = tap if total is None else total + tap
    return total  # type: ignore[no-any-return]


class _WindowMean(torch.autograd.Function):
    """Backward is PyTorch's own: each input gets ``g / divisor`` of its windows. Through the slices it would cost a whole image for each tap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernel: Size, stride: Size, padding: Size, divisor: int) -> Tensor:
        return _sum_windows(x, kernel, stride, padding) / divisor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Size, Size, Size, int], output: Tensor) -> None:
        x, *ctx.window = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        kernel, stride, padding, divisor = ctx.window
        like = grad.new_empty(ctx.shape)  # its shape is all that is read
        pool = torch.ops.aten.avg_pool2d_backward if len(kernel) == 2 else torch.ops.aten.avg_pool3d_backward
        return pool(grad.contiguous(), like, kernel, stride, padding, False, True, divisor), None, None, None, None


def window_mean(x: Tensor, kernel: Size, stride: Size, padding: Size, divisor: int) -> Tensor:
    """Sum each window in raster order in the dtype of x, padding adds 0, then divide once.

    Parameters
    ----------
    x : Tensor of shape (N, C, ..) or (C, ..)
        With one to three axes behind the channels, as many as ``kernel``, ``stride`` and ``padding`` have entries.

    Raises
    ------
    ShapeError
        When x has another rank, or is smaller than the window.
    """
    axes = len(kernel)
    if x.ndim not in (axes + 1, axes + 2) or any(
        size + 2 * pad < extent for size, pad, extent in zip(x.shape[-axes:], padding, kernel, strict=True)
    ):
        names = ", ".join(("D", "H", "W")[-axes:]) if axes > 1 else "L"
        raise ShapeError(f"average pooling with a window of {kernel} takes (N, C, {names}) of at least its size, not {tuple(x.shape)}")
    if axes == 1:  # PyTorch's own pool of one axis is that of an image of one row, too
        return window_mean(x.unsqueeze(-2), (1, *kernel), (1, *stride), (0, *padding), divisor).squeeze(-2)
    if torch.is_grad_enabled() and x.requires_grad:
        return _WindowMean.apply(x, kernel, stride, padding, divisor)  # type: ignore[no-any-return, no-untyped-call]
    return _sum_windows(x, kernel, stride, padding) / divisor


class _AvgPool(nn.Module):
    """What average pools share, mixed into one of torch's."""

    axes: ClassVar[int]
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kernel, padding = _size(self.kernel_size, self.axes), _size(self.padding, self.axes)
        if self.ceil_mode or (any(padding) and not self.count_include_pad):
            raise ConfigError(
                "lobit's average pool has one divisor for all windows: use ceil_mode=False, and count_include_pad=True with padding"
            )
        if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
            raise ConfigError(f"padding {padding} is more than half the kernel {kernel}; pad in a layer of its own before the pool")

    @property
    def divisor(self) -> int:
        """What a window's sum is divided by."""
        return self.divisor_override or math.prod(_size(self.kernel_size, self.axes))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Pool input of shape (N, C, ..)."""
        kernel, stride, padding = (_size(value, self.axes) for value in (self.kernel_size, self.stride, self.padding))
        return window_mean(input, kernel, stride, padding, self.divisor)


class AvgPool1d(_AvgPool, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` by `window_mean`; errors as `AvgPool2d`."""

    axes = 1


class AvgPool2d(_AvgPool, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` by `window_mean`.

    Raises
    ------
    ConfigError
        For ``ceil_mode``, and ``count_include_pad=False`` with padding: their windows have different divisors; for padding beyond half the kernel.

    Examples
    --------
    >>> AvgPool2d(2)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 2, 2])
    """

    axes = 2


class AvgPool3d(_AvgPool, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` by `window_mean`; errors as `AvgPool2d`."""

    axes = 3


class _AdaptiveAvgPool(nn.Module):
    """What adaptive average pools share, mixed into one of torch's."""

    axes: ClassVar[int]
    output_size: Any

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Pool input of shape (N, C, ..) to (N, C, *output_size)."""
        size = tuple(int(n) for n in input.shape[-self.axes :])
        if not self.divides(*size):
            return super().forward(input)  # type: ignore[no-any-return]
        kernel = self.kernel(*size)
        return window_mean(input, kernel, kernel, (0,) * self.axes, math.prod(kernel))

    def _out(self, size: Size) -> Size:
        given = self.output_size if isinstance(self.output_size, (tuple, list)) else (self.output_size,) * self.axes
        return tuple(have if want is None else want for want, have in zip(given, size, strict=True))

    def divides(self, *size: int) -> bool:
        """Whether the output size divides an image of this size."""
        return all(have % want == 0 for have, want in zip(size, self._out(size), strict=True))

    def kernel(self, *size: int) -> Size:
        """The window, which is the stride too, for an image of this size.

        Raises
        ------
        ConfigError
            When the output size does not divide the image.
        """
        out = self._out(size)
        if not self.divides(*size):
            raise ConfigError(f"an adaptive pool to {out} needs an image that it divides, not {size}; use AvgPool{self.axes}d")
        return tuple(have // want for have, want in zip(size, out, strict=True))


class AdaptiveAvgPool1d(_AdaptiveAvgPool, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d`, as `AdaptiveAvgPool2d`."""

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`; by `window_mean` for output sizes that divide the image, else torch's own, which cannot be exported."""

    axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d`, as `AdaptiveAvgPool2d`."""

    axes = 3


class GlobalAvgPool2d(nn.Module):
    """The mean of each channel's whole image, by `window_mean`: (N, C, H, W) to (N, C).

    ``AdaptiveAvgPool2d(1)`` and a flatten in one; `torch.mean` over both axes adds in an order that depends on the layout.

    Examples
    --------
    >>> GlobalAvgPool2d()(torch.ones(1, 3, 4, 4))
    tensor([[1., 1., 1.]])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as all layers
        """Pool input of shape (N, C, H, W) to (N, C), or (C, H, W) to (C,)."""
        size = tuple(int(n) for n in input.shape[-2:])
        return window_mean(input, size, size, (0, 0), math.prod(size)).flatten(-3)
