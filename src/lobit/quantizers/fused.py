"""One pass over memory where PyTorch's operators take many: the native loops behind a quantizer's training step on the CPU.

`straight_through` says what each computes, in PyTorch, and runs it for all other devices and dtypes, and for graphs. Results are equal bit for bit, but for
the sum of `round_back`, which is formed in double precision.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lobit import _native
from lobit.quantizers.tracing import traced

COLUMNS = 1 << 14  # of a row where one step serves all elements
SMALLEST = 1 << 12  # below, a few operators of PyTorch cost no more than finding out


def usable(x: Tensor) -> bool:
    """Whether the native loops are for a tensor: `native`, and large enough."""
    return x.numel() >= SMALLEST and native(x)


def native(x: Tensor) -> bool:
    """Whether the native loops take a tensor: float32 on the CPU, dense, and real (no tracing, no subclass)."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not traced() and dense(x)


def dense(x: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, in any common order of the axes."""
    return x.is_contiguous() or (
        (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
        or (x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d))
    )


def rows_of(x: Tensor, step: Tensor | None) -> int:
    """Elements that share a step, 0 where the loops cannot tell: all, or those of an output channel."""
    if step is None or step.numel() == 1:
        return COLUMNS
    one_a_channel = step.shape == (len(x), *[1] * (x.ndim - 1)) and x.is_contiguous() and step.is_contiguous()
    columns = x.numel() // max(len(x), 1)
    return columns if one_a_channel and columns >= 8 else 0


def sign(x: Tensor) -> Tensor:
    """``x >= 0 ? 1 : -1``."""
    out = torch.empty_like(x)
    _native.training.sign(x.data_ptr(), out.data_ptr(), x.numel(), COLUMNS, *_where())
    return out


def inside(x: Tensor, lo: float, hi: float) -> Tensor:
    """``lo <= x <= hi`` in the order of memory, eight to a byte."""
    mask = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8)
    _native.training.inside(x.data_ptr(), mask.data_ptr(), x.numel(), COLUMNS, lo, hi, *_where())
    return mask


def masked(grad: Tensor, mask: Tensor, slope: float = 1.0) -> Tensor:
    """``mask ? grad * slope : 0``."""
    out = torch.empty_like(grad)
    _native.training.masked(grad.data_ptr(), mask.data_ptr(), out.data_ptr(), grad.numel(), COLUMNS, slope, *_where())
    return out


def round_codes(x: Tensor, step: Tensor | None, lo: float, hi: float, out: Tensor | None = None, inside: Tensor | None = None) -> Tensor:
    """``round(clamp(x / step, lo, hi))``, half to even; into ``out`` where it is given, and into the bool tensor ``inside`` whether ``lo <= x / step <= hi``."""
    out = torch.empty_like(x) if out is None else out
    address, stride = _step(step)
    columns = rows_of(x, step)
    _native.training.round(
        x.data_ptr(), address, stride, out.data_ptr(), x.numel(), columns, lo, hi, 0 if inside is None else inside.data_ptr(), *_where()
    )
    return out


def round_back(x: Tensor, grad: Tensor, step: Tensor, lo: float, hi: float) -> tuple[Tensor, Tensor]:
    """With ``v = x / step``: ``lo <= v <= hi ? grad / step : 0``, and the sum of ``grad * v`` inside, of the shape of ``step``."""
    out, columns = torch.empty_like(x), rows_of(x, step)
    sums = torch.empty(-(-x.numel() // columns), dtype=torch.float64)
    address, stride = _step(step)
    _native.training.round_back(
        x.data_ptr(), grad.data_ptr(), address, stride, out.data_ptr(), sums.data_ptr(), x.numel(), columns, lo, hi, *_where()
    )
    return out, (sums.reshape(step.shape) if stride else sums.sum().reshape(step.shape)).float()


def expandable(codes: Tensor, like: Tensor) -> bool:
    """Whether the loops read kept codes: bytes, in the order of memory of a tensor that is `usable`."""
    return codes.dtype in (torch.int8, torch.uint8) and usable(like) and codes.stride() == like.stride()


def expand(codes: Tensor, scale: Tensor | None) -> Tensor:
    """``codes * scale`` in float32, of bytes; with one scale, or one for each of the first axis."""
    out = torch.empty_like(codes, dtype=torch.float32)
    address, stride = _step(scale)
    unsigned = codes.dtype == torch.uint8
    columns = rows_of(codes, scale)
    _native.training.expand(codes.data_ptr(), unsigned, address, stride, out.data_ptr(), codes.numel(), columns, *_where())
    return out


def scale_back_(grad: Tensor, codes: Tensor, scale: Tensor | None) -> Tensor:
    """The sum of ``grad * codes``, of the shape of ``scale``; then ``grad <- grad * scale`` in place."""
    columns = rows_of(codes, scale)
    sums = torch.empty(-(-grad.numel() // columns), dtype=torch.float64)
    address, stride = _step(scale)
    unsigned = codes.dtype == torch.uint8
    _native.training.scale_back(
        grad.data_ptr(), codes.data_ptr(), unsigned, address, stride, sums.data_ptr(), grad.numel(), columns, *_where()
    )
    return sums.float() if stride else sums.sum().float()


def signs(bits: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """``bit ? 1 : -1`` in float32: what `inside` made of codes -1 and +1 with the window [0, inf)."""
    out = torch.empty_strided(shape, stride)
    _native.training.signs(bits.data_ptr(), out.data_ptr(), out.numel(), COLUMNS, *_where())
    return out


def to_bytes(x: Tensor, lo: int, hi: int, dtype: torch.dtype) -> Tensor | None:
    """Integers lo .. hi, at most 256 of them, modulo 256 as int8 or uint8 in the same order of memory; None where there are other values, or NaN."""
    if dtype not in (torch.int8, torch.uint8):
        raise TypeError(
            f"integers {lo} .. {hi} are written as bytes, which a tensor of {dtype} does not hold: ask for torch.int8 or torch.uint8"
        )
    out = torch.empty_like(x, dtype=dtype)
    others = torch.empty(-(-x.numel() // COLUMNS), dtype=torch.float64)
    _native.training.bytes(x.data_ptr(), out.data_ptr(), others.data_ptr(), x.numel(), COLUMNS, lo, hi, *_where())
    return None if others.any() else out


def to_pixels(x: Tensor, lo: int, hi: int, zero: int, border: tuple[int, int]) -> Tensor | None:
    """Integers lo .. hi of contiguous images (N, C, H, W) as bytes ``x + zero``, with a border of ``zero`` above and beside, in channels-last memory.

    None where there are other values, or NaN.
    """
    (images, channels, height, width), (above, before) = x.shape, border
    out = torch.empty(images, height + 2 * above, width + 2 * before, channels, dtype=torch.uint8)
    others = torch.empty(images, dtype=torch.float64)
    _native.training.pixels(
        x.data_ptr(), out.data_ptr(), others.data_ptr(), images, channels, height, width, above, before, lo, hi, zero, *_where()
    )  # fmt: skip
    return None if others.any() else out.permute(0, 3, 1, 2)


def to_planes(x: Tensor, offset: Tensor | None, scale: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
    """``(x - offset) * scale + bias`` from channels-last memory to contiguous: x of shape (N, C, ..), values of each channel, or one scale for all; float32."""
    address, stride = _step(scale)
    minus, plus = (0 if values is None else values.data_ptr() for values in (offset, bias))
    images, channels = x.shape[:2]
    _native.training.planes(
        x.data_ptr(), minus, address, stride, plus, out.data_ptr(), images, math.prod(x.shape[2:]), channels, *_where()
    )  # fmt: skip


def steps_usable(*tensors: Tensor) -> bool:
    """Whether the native step of a recurrent cell takes these tensors: float32 on the CPU, contiguous, and real."""
    return not traced() and all(
        t.dtype == torch.float32 and t.device.type == "cpu" and type(t) in (Tensor, nn.Parameter) and t.is_contiguous() for t in tensors
    )


def lstm_step(
    sums: Tensor, gates: Tensor, c: Tensor, tanh_c: Tensor, h: Tensor, tables: tuple[int, int], kept: tuple[Tensor, Tensor, Tensor] | None
) -> None:
    """The elementwise part of an LSTM's step, `lobit.nn.cells.Memory.lstm`; ``kept`` are ``inside``, ``new_inside`` and ``cells``."""
    inside, new_inside, cells = (0, 0, 0) if kept is None else (t.data_ptr() for t in kept)
    _native.training.lstm(
        False, len(c), c.shape[1], *tables, sums.data_ptr(), gates.data_ptr(), inside, new_inside, cells, c.data_ptr(), tanh_c.data_ptr(),
        h.data_ptr(), 0, *_where(),
    )  # fmt: skip


def lstm_step_back(
    dh: Tensor, dc: Tensor, gates: Tensor, inside: Tensor, tanh_c: Tensor, new_inside: Tensor, cells: Tensor, out: Tensor
) -> None:
    """`lobit.nn.cells.lstm_backward`."""
    _native.training.lstm(
        True, len(dc), dc.shape[1], 0, 0, 0, gates.data_ptr(), inside.data_ptr(), new_inside.data_ptr(), cells.data_ptr(), dc.data_ptr(),
        tanh_c.data_ptr(), dh.data_ptr(), out.data_ptr(), *_where(),
    )  # fmt: skip


def _step(step: Tensor | None) -> tuple[int, int]:
    return (0, 0) if step is None else (step.data_ptr(), int(step.numel() > 1))


def _where() -> tuple[int, int]:
    """The instruction set and the number of threads."""
    return _best_isa(), torch.get_num_threads()


@cache
def _best_isa() -> int:
    _borrow_threads()
    return len(_native.isas()) - 1


def _borrow_threads() -> None:
    """Run on the threads that PyTorch has: its own wait for work by spinning, in the way of any others."""
    try:
        with open("/proc/self/maps") as maps:  # noqa: PTH123  # no file of a folder
            path = next(line.split(maxsplit=5)[5].strip() for line in maps if "libgomp" in line and line.count("/"))
        parallel: Any = ctypes.CDLL(path).GOMP_parallel
    except (OSError, StopIteration, AttributeError, IndexError):
        return  # another OpenMP, or none: the engine's threads do it
    _native.training.use_threads(ctypes.cast(parallel, ctypes.c_void_p).value or 0)
