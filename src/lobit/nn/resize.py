"""Upsampling whose bilinear form has one order of operations: the same floats on every machine, and in a packed file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError

NEAREST, LINEAR = ("nearest", "nearest-exact"), ("linear", "bilinear")


class Axis(NamedTuple):
    """How one axis is resized: output place i is input place ``places[i]``, or a mix of it and the next one.

    Attributes
    ----------
    places : int64 Tensor of shape (size,)
    shares : float32 Tensor of shape (size,), or None
        How much of the mix is the next one's, from 0 to 1; None for nearest places.
    """

    places: Tensor
    shares: Tensor | None


def axis(before: int, after: int, factor: float | None, mode: str, align_corners: bool | None, image: bool = True) -> Axis:
    """The table of an axis, by PyTorch's formulas in float32.

    With ``r = 1 / factor`` where a factor is given, else ``before / after``: nearest takes place ``floor(i r)``, nearest-exact ``floor((i + 1/2) r)``; the linear
    modes mix at ``max((i + 1/2) r - 1/2, 0)``, with aligned corners at ``i (before - 1) / (after - 1)``.

    Parameters
    ----------
    before, after : int
        Sizes of the input and the output.
    factor : float, optional
        The scale factor that PyTorch was given, which need not be the ratio of the sizes.
    mode : {"nearest", "nearest-exact", "linear", "bilinear"}
    align_corners : bool, optional
    image : bool
        Whether it is an axis of an image: there PyTorch's nearest takes no ratio where the size stays or doubles, whatever the factor.
    """
    i = torch.arange(after, dtype=torch.float32)
    ratio = torch.tensor(1.0 / factor if factor else before, dtype=torch.float32)
    ratio = ratio if factor else ratio / after
    if mode in NEAREST:
        whole = image and mode == "nearest" and after in (before, 2 * before)
        at = i * ratio if mode == "nearest" else ((i.double() + 0.5) * ratio).float()  # PyTorch's half is a double
        at = torch.arange(after) // (after // before) if whole else at.floor().long()
        return Axis(at.clamp(max=before - 1), None)
    if align_corners:
        ratio = torch.tensor(before - 1, dtype=torch.float32) / (after - 1) if after > 1 else torch.zeros(())
        at = i * ratio
    else:
        at = ((i + 0.5) * ratio - 0.5).clamp(min=0.0)
    places = at.long().clamp(max=before - 1)
    return Axis(places, (at - places).clamp(0.0, 1.0))


def resized(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """A tensor with its last axes resized, rows before columns.

    A mix of neighbours a and b is ``a + share * (b - a)``, three float operations, each rounded once; so a constant image stays the same constant. The last
    place's next one is itself.
    """
    for back, (places, shares) in zip(range(-len(axes), 0), axes, strict=True):
        places = places.to(x.device)
        a = x.index_select(back, places)
        if shares is not None:
            b = x.index_select(back, (places + 1).clamp(max=x.shape[back] - 1))
            share = shares.to(x.device).reshape(-1, *[1] * (-1 - back))
            a = (a + share * (b - a)).to(x.dtype)
        x = a
    return x


class Upsample(nn.Upsample):
    """`torch.nn.Upsample` by nearest places or bilinear, with an eval that gives the same floats everywhere.

    Training is torch's: values and gradients. Eval of the linear modes is `resized`, which differs from torch's values by rounding alone, at most 4 units in the last
    place of the largest neighbour. Nearest places are torch's, but where torch's own kernels disagree on them: a factor that is not the ratio of the sizes. A packed file computes the same bits.

    Parameters are torch's: size, scale_factor, mode, align_corners and recompute_scale_factor. Modes are nearest, nearest-exact, linear (of (N, C, L)) and bilinear.

    Raises
    ------
    ConfigError
        For another mode.

    Examples
    --------
    >>> Upsample(scale_factor=2, mode="bilinear").eval()(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000],
              [0.0000, 0.2500, 0.7500, 1.0000]]]])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_mode(self.mode)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Resize input of shape (N, C, L), (N, C, H, W) or (N, C, D, H, W)."""
        if self.training:
            return super().forward(input)
        alike = input.new_empty((1, 1, *input.shape[2:]), device="meta")  # torch refuses images of no samples there
        return resized(input, self.axes(super().forward(alike).shape[2:], input.shape[2:]))

    def axes(self, after: Sequence[int], before: Sequence[int]) -> list[Axis]:
        """The tables of all axes behind the channels, for their sizes."""
        given = None if self.recompute_scale_factor else self.scale_factor
        return axes_of(before, after, given, self.mode, self.align_corners)


class UpsamplingNearest2d(Upsample, nn.UpsamplingNearest2d):
    """`torch.nn.UpsamplingNearest2d` as an `Upsample`."""


class UpsamplingBilinear2d(Upsample, nn.UpsamplingBilinear2d):
    """`torch.nn.UpsamplingBilinear2d`, which aligns corners, as an `Upsample`."""


def axes_of(
    before: Sequence[int], after: Sequence[int], factors: float | Sequence[float] | None, mode: str, align_corners: bool | None
) -> list[Axis]:
    """`axis` for each of several; ``factors`` may be one for all."""
    each = [factors] * len(after) if factors is None or isinstance(factors, (int, float)) else list(factors)
    return [axis(int(b), int(a), factor, mode, align_corners, len(after) == 2) for b, a, factor in zip(before, after, each, strict=True)]


def check_mode(mode: str) -> None:
    """Refuse a mode without an order of operations of its own.

    Raises
    ------
    ConfigError
        For such a mode.
    """
    if mode not in (*NEAREST, *LINEAR):
        raise ConfigError(f"lobit.nn.Upsample has the modes {', '.join((*NEAREST, *LINEAR))}, not {mode!r}; use torch.nn.Upsample for it")
