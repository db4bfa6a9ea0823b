"""Windows: how a convolution or a pool slides over an image, and what size comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_EXTENT = 1 << 16
MAX_STEPPING = 64


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, stride and dilation as (height, width); padding as (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Output height and width: ``floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1``.

        Raises
        ------
        ValueError
            When the kernel does not fit the padded image.
        """
        out = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = size[axis] + self.padding[axis] + self.padding[axis + 2] - reach
            if room < 0:
                raise ValueError(
                    f"a kernel {self.kernel} with dilation {self.dilation} does not fit an image {tuple(size)} padded by {self.padding}"
                )
            out.append(room // self.stride[axis] + 1)
        return out[0], out[1]

    def always_meets(self, size: Sequence[int]) -> bool:
        """Whether every window has at least one tap inside the image."""
        return all(self._axis_meets(axis, size[axis], count) for axis, count in enumerate(self.output_size(size)))

    def _axis_meets(self, axis: int, size: int, count: int) -> bool:
        """Ahead of the image the first window is the worst, unless taps can step over the image: then each is looked at. Behind it, the last."""
        stride, padding = self.stride[axis], self.padding[axis]
        before = min(count, -(-padding // stride))
        stepping = self.dilation[axis] > size
        if stepping and before > MAX_STEPPING:
            return False
        looked_at = [*range(before if stepping else min(before, 1)), count - 1]
        return all(self._meets(axis, size, out * stride - padding) for out in looked_at)

    def _meets(self, axis: int, size: int, start: int) -> bool:
        first = max(0, -(start // self.dilation[axis]))  # the first tap at or after the image's edge
        return first < self.kernel[axis] and start + first * self.dilation[axis] < size

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the padded image."""
        return size[0] + self.padding[0] + self.padding[2], size[1] + self.padding[1] + self.padding[3]


def window_of(attrs: Mapping[str, Any]) -> Window:
    """Read a window from a node's attributes.

    Raises
    ------
    ValueError
        For a missing or extreme setting.
    """
    return Window(
        _numbers(attrs, "kernel", 2, 1),  # type: ignore[arg-type]
        _numbers(attrs, "stride", 2, 1),  # type: ignore[arg-type]
        _numbers(attrs, "padding", 4, 0),  # type: ignore[arg-type]
        _numbers(attrs, "dilation", 2, 1),  # type: ignore[arg-type]
    )


def _numbers(attrs: Mapping[str, Any], name: str, count: int, low: int) -> tuple[int, ...]:
    given = attrs.get(name)
    if not isinstance(given, (list, tuple)) or len(given) != count or any(type(n) is not int or not low <= n < MAX_EXTENT for n in given):
        raise ValueError(f"{name} must be {count} integers from {low} to {MAX_EXTENT - 1}, not {given!r}")
    return tuple(given)


def image_size(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of ``(C, H, W)``; ``(C, L)`` is an image of one row.

    Raises
    ------
    ValueError
        For another rank.
    """
    if len(shape) not in (2, 3):
        raise ValueError(f"its input must have shape (C, H, W) or (C, L), not {tuple(shape)}")
    return (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])


def flatten_shape(shape: Sequence[int]) -> tuple[int]:
    """The shape after flatten."""
    return (math.prod(shape),)
