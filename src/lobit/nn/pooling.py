"""Average pooling with one order of summation: the same floats for every layout and batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError

Pair = tuple[int, int]


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _sum_windows(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, cols = ((x.shape[axis - 2] - kernel[axis]) // stride[axis] + 1 for axis in (0, 1))
    total: Any = None
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            tap = x[..., i : i + (rows - 1) * stride[0] + 1 : stride[0], j : j + (cols - 1) * stride[1] + 1 : stride[1]]
            total = tap if total is None else total + tap
    return total  # type: ignore[no-any-return]


class _WindowMean(torch.autograd.Function):
    """Backward is PyTorch's own: each input gets ``g / divisor`` of its windows. Through the slices it would cost a whole image for each tap."""

    @staticmethod
    def forward(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, divisor: int) -> Tensor:
        return _sum_windows(x, kernel, stride, padding) / divisor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Pair, Pair, Pair, int], output: Tensor) -> None:
        x, *ctx.window = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        kernel, stride, padding, divisor = ctx.window
        like = grad.new_empty(ctx.shape)  # its shape is all that is read
        back = torch.ops.aten.avg_pool2d_backward(grad.contiguous(), like, kernel, stride, padding, False, True, divisor)
        return back, None, None, None, None


def window_mean(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, divisor: int) -> Tensor:
    """Sum each window in raster order in the dtype of x, padding adds 0, then divide once.

    Parameters
    ----------
    x : Tensor of shape (N, C, H, W) or (C, H, W)

    Raises
    ------
    ShapeError
        When x has another rank, or is smaller than the window.
    """
    if x.ndim not in (3, 4) or any(x.shape[axis - 2] + 2 * padding[axis] < kernel[axis] for axis in (0, 1)):
        raise ShapeError(f"average pooling with a window of {kernel} takes (N, C, H, W) of at least its size, not {tuple(x.shape)}")
    if torch.is_grad_enabled() and x.requires_grad:
        return _WindowMean.apply(x, kernel, stride, padding, divisor)  # type: ignore[no-any-return, no-untyped-call]
    return _sum_windows(x, kernel, stride, padding) / divisor


class AvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` by `window_mean`.

    Raises
    ------
    ConfigError
        For ``ceil_mode``, and ``count_include_pad=False`` with padding: their windows have different divisors; for padding beyond half the kernel.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ceil_mode or (any(_pair(self.padding)) and not self.count_include_pad):
            raise ConfigError(
                "lobit's average pool has one divisor for all windows: use ceil_mode=False, and count_include_pad=True with padding"
            )

        kernel, padding = _pair(self.kernel_size), _pair(self.padding)
        if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
            raise ConfigError(f"padding {padding} is more than half the kernel {kernel}; pad in a layer of its own before the pool")

    @property
    def divisor(self) -> int:
        """What a window's sum is divided by."""
        kernel = _pair(self.kernel_size)
        return self.divisor_override or kernel[0] * kernel[1]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Pool input of shape (N, C, H, W)."""
        return window_mean(input, _pair(self.kernel_size), _pair(self.stride), _pair(self.padding), self.divisor)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`; by `window_mean` for output sizes that divide the image, else torch's own, which cannot be exported."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Pool input of shape (N, C, H, W) to (N, C, *output_size)."""
        height, width = int(input.shape[-2]), int(input.shape[-1])
        if not self.divides(height, width):
            return super().forward(input)
        kernel = self.kernel(height, width)
        return window_mean(input, kernel, kernel, (0, 0), kernel[0] * kernel[1])

    def _out(self, height: int, width: int) -> tuple[int, ...]:
        given = self.output_size if isinstance(self.output_size, tuple) else (self.output_size, self.output_size)
        return tuple(size if want is None else want for want, size in zip(given, (height, width), strict=True))

    def divides(self, height: int, width: int) -> bool:
        """Whether the output size divides an image."""
        out = self._out(height, width)
        return height % out[0] == 0 and width % out[1] == 0

    def kernel(self, height: int, width: int) -> tuple[int, int]:
        """The window, which is the stride too, for an image.

        Raises
        ------
        ConfigError
            When the output size does not divide the image.
        """
        out = self._out(height, width)
        if not self.divides(height, width):
            raise ConfigError(f"an adaptive pool to {out} needs an image that it divides, not {(height, width)}; use AvgPool2d")
        return height // out[0], width // out[1]
