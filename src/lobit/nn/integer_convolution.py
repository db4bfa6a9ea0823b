"""Exact sums of a convolution of codes from 8-bit integers, by the kernels that PyTorch has for quantized inference: those of float32 in a fraction of its time.

A sum of integers is the same whoever forms it. On a processor whose vector instructions multiply bytes (VNNI, AMX) training therefore runs its forward
convolutions in bytes, and in float32 elsewhere. Gradients are floats, so the backward pass stays in float32.

Those kernels take unsigned inputs. Codes from lo < 0 become ``u = x - lo``, the border too, and ``sum u w = sum x w - lo sum w``: what is too much is one number for
each output channel.

The kernels have been wrong at some geometries (`_is_right`), and are not the same on every processor. So each geometry proves itself at its first use, once in a process,
against the convolution in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lobit.quantizers import fused

BYTE = 255
EXACT_IN_FLOAT32 = 2**24
LARGEST_K = 2**31 // (BYTE * 128)  # products of bytes whose sum an int32 always holds
WORTH_PACKING = 128  # outputs of a channel, below which laying out the weights takes longer than the product saves
LARGEST_KERNEL, LARGEST_STRIDE = 7, 3  # along an axis, see `_is_right`
KINDS = (  # height, width, channels, outputs, kernel, stride, dilation: oneDNN lays out input and weights in a way of its own for each
    (8, 8, 64, 16, 3, 1, 1),
    (5, 66, 64, 16, 3, 1, 1),  # wide enough to read the input where it lies
    (9, 9, 33, 20, 3, 1, 2),
    (9, 9, 64, 33, 3, 2, 1),
    (8, 8, 32, 33, 2, 2, 1),  # two columns as one of twice the channels
    (16, 16, 3, 32, 7, 2, 1),  # few channels
    (8, 8, 64, 33, 1, 1, 1),
    (8, 8, 64, 33, 1, 2, 1),
)
MOST_PROOFS = 1000  # where every batch has a new size, a proof for each costs more than bytes save
SHORTEST = 8  # values of an image that the native loops take


@dataclass(frozen=True, slots=True)
class Convolution:
    """The settings of a convolution of any rank, transposed or not."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = (0,)


class Integers(NamedTuple):
    """What an operand holds: the integers lo .. hi, of which ``signs`` are the two ends alone; with ``floats`` any values, kept as they are."""

    lo: int
    hi: int
    signs: bool = False
    floats: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The smallest dtype of integers for them."""
        if self.floats:
            return torch.float32
        if self.lo >= -128 and self.hi <= 127:
            return torch.int8
        return torch.uint8 if self.lo >= 0 and self.hi <= BYTE else torch.int16

    @property
    def zero(self) -> int:
        """What makes them unsigned when it is added."""
        return max(-self.lo, 0)


def integer_convolution(
    x: Tensor,
    weight: Tensor,
    weight_codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    how: Convolution,
    held: tuple[Integers, Integers],
) -> Tensor | None:
    """``convolution(x, weight) * scale + bias`` of codes, the sums in bytes; None where it is not for the byte kernels.

    Parameters
    ----------
    x : float32 Tensor of shape (N, I, H, W)
        Integers, if nothing went wrong: a NaN, say, is found here, and left to float arithmetic to pass on.
    weight, weight_codes : Tensors of shape (O, I, kh, kw)
        Integers in float32, and the same in bytes.
    scale : float32 Tensor of one value or O, optional
    bias : float32 Tensor of shape (O,), optional
    how : Convolution
    held : pair of Integers
        Those in ``x`` and ``weight``.
    """
    of_x, outputs = held[0], output_size(x, weight, how)
    if not _fits(x, weight, outputs, how, held) or not available() or not proven(x.shape, weight.shape, how):
        return None
    planes = x.is_contiguous() and weight.is_contiguous() and len(weight) * math.prod(outputs) >= SHORTEST
    out = torch.empty(len(x), len(weight), *outputs) if planes else None  # ahead of what is freed again, so that it leaves no hole
    offset = weight.sum((1, 2, 3)).mul_(of_x.zero) if of_x.zero else None
    codes = _in_border(x, of_x, (how.padding[0], how.padding[1]))
    if codes is None:
        return None
    sums = byte_convolution(codes, weight_codes, how)
    if out is not None:
        fused.to_planes(sums, offset, scale, bias, out)
        return out
    if offset is not None:
        sums.sub_(_along(offset, 3))
    scale_(sums, scale, bias, 3)
    return sums.contiguous() if x.is_contiguous() and weight.is_contiguous() else sums


def output_size(x: Tensor, weight: Tensor, how: Convolution) -> list[int]:
    """Of a convolution that is not transposed, along each of its axes; below 1 where the kernel does not fit."""
    return [
        (size + 2 * pad - step * (kernel - 1) - 1) // stride + 1
        for size, pad, step, kernel, stride in zip(x.shape[2:], how.padding, how.dilation, weight.shape[2:], how.stride, strict=True)
    ]


def scale_(y: Tensor, scale: Tensor | None, bias: Tensor | None, axes: int) -> None:
    """``y <- y * scale + bias``, of output channels with ``axes - 1`` axes behind."""
    if scale is not None:
        y.mul_(_along(scale, axes))
    if bias is not None:
        y.add_(_along(bias, axes))


def _along(values: Tensor, axes: int) -> Tensor:
    return values.detach().reshape(-1, *[1] * (axes - 1))


def _in_border(x: Tensor, of_x: Integers, padding: tuple[int, int]) -> Tensor | None:
    """Unsigned bytes of an input and its border, in channels-last memory; None where there are values that are no codes."""
    if x.is_contiguous():
        return fused.to_pixels(x, of_x.lo, of_x.hi, of_x.zero, padding)
    codes = fused.to_bytes(x, of_x.lo, of_x.hi, torch.uint8)
    if codes is None:
        return None
    codes = codes.add_(of_x.zero)  # modulo 256, as the bytes are, so that the sum is right: it is 0 .. 255
    return F.pad(codes, [padding[1], padding[1], padding[0], padding[0]], value=of_x.zero) if any(padding) else codes


def _fits(x: Tensor, weight: Tensor, outputs: list[int], how: Convolution, held: tuple[Integers, Integers]) -> bool:
    """Whether a convolution is one for the byte kernels: of images, at a width and a length that keep its sums exact, and large enough to be worth it."""
    if how.transposed or how.groups != 1 or x.ndim != 4 or not fused.usable(x) or not fused.native(weight):
        return False
    (lo, hi, *_), of_weight, k = held[0], held[1], weight[0].numel()
    exact = hi - lo <= BYTE and hi + held[0].zero <= BYTE and of_weight.dtype == torch.int8 and k <= LARGEST_K
    if lo < 0:
        exact = exact and k * max(hi - lo, -lo) * max(-of_weight.lo, of_weight.hi) <= EXACT_IN_FLOAT32  # the surplus too
    fits = x.shape[1] == weight.shape[1] and min(outputs) > 0
    worth_it = x[0].numel() >= SHORTEST and len(x) * math.prod(outputs) >= WORTH_PACKING
    return exact and fits and worth_it and _is_right(weight.shape[2:], how.stride, outputs)


def _is_right(kernel: Sequence[int], stride: tuple[int, ...], outputs: list[int]) -> bool:
    """Whether a geometry is among those that the byte kernels compute rightly.

    On AMX those of oneDNN 3.12, in PyTorch 2.13, are silently wrong for three kinds, each of which is left out with what is around it:
    - outputs one column wide: rows of the input are taken to be further apart than they are;
    - few channels at many places, multiplied as more channels at one: weights are padded as if they were not. So it is with kernels of 8 rows or columns, and
      where the width of a kernel and its stride have a common divisor of 4, as patches have;
    - a stride beyond the kernel: room is made for the input that the kernel covers alone, and sums overwrite the rest (uxlfoundation/oneDNN#5494).
    A kernel of 1x1 is another function there, and right.
    """
    simple = all(size <= LARGEST_KERNEL and step <= min(size, LARGEST_STRIDE) for size, step in zip(kernel, stride, strict=True))
    return math.prod(kernel) == 1 or (simple and outputs[1] > 1)


def byte_convolution(x: Tensor, weight: Tensor, how: Convolution) -> Tensor:
    """``convolution(x, weight)`` without a border, the sums in float32, in channels-last memory: x of uint8 (N, I, H, W), weight of int8 (O, I, kh, kw)."""
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    settings = [list(how.stride), [0, 0], list(how.dilation), how.groups]
    packed = torch.ops.onednn.qconv_prepack(weight, one, 1.0, 0, *settings, list(x.shape))
    return torch.ops.onednn.qconv2d_pointwise(  # type: ignore[no-any-return]
        x, 1.0, 0, packed, one, zero, None, *settings, 1.0, 0, torch.float32, "none", [], ""
    )


_PROOFS: dict[tuple[object, ...], bool] = {}


def proven(x: torch.Size, weight: torch.Size, how: Convolution) -> bool:
    """Whether the kernels have the sums of float32 at this geometry, on the threads there are; tried at its first use, with small codes."""
    bordered = [*x[:2], x[2] + 2 * how.padding[0], x[3] + 2 * how.padding[1]]
    geometry = (*bordered, weight, how.stride, how.dilation, torch.get_num_threads())
    if geometry not in _PROOFS:
        if len(_PROOFS) >= MOST_PROOFS:
            return False
        own = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 4, bordered, dtype=torch.uint8, generator=own).contiguous(memory_format=torch.channels_last)
        weights = torch.randint(-2, 2, weight, dtype=torch.int8, generator=own)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected = F.conv2d(codes.float(), weights.float(), None, how.stride, 0, how.dilation)
        _PROOFS[geometry] = torch.equal(byte_convolution(codes, weights, how), expected)
    return _PROOFS[geometry]


@cache
def available() -> bool:
    """Whether PyTorch has these kernels here, and they are exact: at the largest codes, where products of bytes without VNNI saturate, and at one of each kind."""
    generator = torch.Generator().manual_seed(0)
    try:
        return all(_is_exact(shape, generator) for shape in KINDS)
    except (AttributeError, RuntimeError, NotImplementedError):  # no such operator here, or not for this processor
        return False


def _is_exact(shape: tuple[int, ...], generator: torch.Generator) -> bool:
    height, width, channels, outputs, kernel, stride, dilation = shape
    x = torch.randint(0, BYTE + 1, (2, channels, height, width), generator=generator, dtype=torch.uint8)
    weight = torch.randint(-128, 128, (outputs, channels, kernel, kernel), generator=generator, dtype=torch.int8)
    x[1], weight[0], weight[1] = BYTE, -128, 127
    x, how = x.contiguous(memory_format=torch.channels_last), Convolution((stride, stride), (0, 0), (dilation, dilation), 1)
    return torch.equal(byte_convolution(x, weight, how), F.conv2d(x.double(), weight.double(), None, stride, 0, dilation).float())
