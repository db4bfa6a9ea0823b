"""Attributes of windows in the graph's terms, from the many spellings of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pair(value: int | Sequence[int]) -> list[int]:
    """``3`` and ``[3]`` as ``[3, 3]``."""
    numbers = [value] if isinstance(value, int) else list(value)
    return [int(n) for n in (numbers * 2 if len(numbers) == 1 else numbers)]


def lifted(value: int | Sequence[int] | None, unit: int) -> list[int]:
    """A setting of a window over ``(C, L)``, for both axes of ``(C, 1, L)``; ``unit`` is that of the row axis. Nothing, or an empty list, stays empty."""
    numbers = [value] if isinstance(value, int) else list(value or [])
    return [unit, int(numbers[0])] if numbers else []


def conv_attrs(
    kernel: Sequence[int], stride: int | Sequence[int], padding: str | int | Sequence[int], dilation: int | Sequence[int], groups: int
) -> dict[str, Any]:
    """Stride, padding as [top, left, bottom, right], dilation and groups; a kernel of one axis slides along an image of one row.

    ``"same"`` pads by ``dilation * (kernel - 1)`` in all, the odd one at the bottom and right; ``"valid"`` pads nothing.
    """
    if len(kernel) == 1:
        kernel, stride, dilation = lifted(kernel, 1), lifted(stride, 1), lifted(dilation, 1)
        padding = padding if isinstance(padding, str) else lifted(padding, 0)
    steps = pair(dilation)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
        pads = [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    else:
        pads = pair(0 if isinstance(padding, str) else padding) * 2
    return {"stride": pair(stride), "padding": pads, "dilation": steps, "groups": int(groups)}


def max_pool_attrs(
    size: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> dict[str, Any]:
    """Attributes of a max pool over an image of ``size``. With ``ceil_mode`` the bottom and right padding make the last window fit."""
    k, p, d = pair(kernel), pair(padding), pair(dilation)
    s = pair(stride) if stride else k  # functional pooling spells "as the kernel" as an empty list
    ends = [_end(*axis) for axis in zip(size, k, s, p, d, strict=True)] if ceil_mode else p
    return {"kernel": k, "stride": s, "padding": [*p, *ends], "dilation": d}


def _end(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """End padding of PyTorch's ceil mode: one more window if it starts inside the image or its first padding."""
    reach = dilation * (kernel - 1) + 1
    count = -(-(size + 2 * padding - reach) // stride) + 1
    if (count - 1) * stride >= size + padding:
        count -= 1
    return max(padding, (count - 1) * stride + reach - size - padding)


def avg_pool_attrs(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> dict[str, Any]:
    """Attributes of an average pool with one divisor for all windows.

    Raises
    ------
    ValueError
        When the divisor would differ between windows.
    """
    k, p = pair(kernel), pair(padding)
    s = pair(stride) if stride else k
    if ceil_mode:
        raise ValueError("ceil_mode=True is not supported; pad or crop the image instead")
    if any(p) and not count_include_pad and divisor is None:
        raise ValueError("count_include_pad=False with padding divides windows by different counts, which is not supported")
    return {"kernel": k, "stride": s, "padding": p * 2, "divisor": k[0] * k[1] if divisor is None else int(divisor)}


def adaptive_pool_attrs(size: Sequence[int], target: int | Sequence[int | None] | None) -> dict[str, Any]:
    """Attributes of the average pool that brings an image of ``size`` to ``target``.

    Raises
    ------
    ValueError
        When the target does not divide the size.
    """
    wanted = [target, target] if target is None or isinstance(target, int) else list(target)
    out = [n if want is None else want for n, want in zip(size, wanted, strict=True)]
    if any(n % want for n, want in zip(size, out, strict=True)):
        raise ValueError(
            f"an adaptive pool from {tuple(size)} to {tuple(out)} has windows of different sizes; choose a size that divides the image's"
        )
    kernel = [n // want for n, want in zip(size, out, strict=True)]
    return {"kernel": kernel, "stride": kernel, "padding": [0, 0, 0, 0], "divisor": kernel[0] * kernel[1]}
