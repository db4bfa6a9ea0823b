"""Resizing as tables of rows and columns: of lobit's layers, and of PyTorch's own operators behind `torch.nn.functional.interpolate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lobit.capture.builder import GraphBuilder, Value
from lobit.capture.use import Use
from lobit.errors import ExportError
from lobit.format import Constant
from lobit.nn.resize import NEAREST, Axis, axes_of

FOREIGN_RESIZE = (
    "PyTorch's own bilinear resizing; its order of operations depends on the layout (lobit.quantize_ replaces the module nn.Upsample)"
)


def resize(builder: GraphBuilder, path: str, x: Value, shape: tuple[int, ...], axes: Sequence[Axis], inexact: str | None = None) -> Value:
    """Append a `resize2d`; along a row, (C, L), it has a table of one row.

    Raises
    ------
    ExportError
        For a volume.
    """
    if len(axes) == 1:
        one = Axis(torch.zeros(1, dtype=torch.int64), None if axes[0].shares is None else torch.zeros(1))
        axes = [one, *axes]
    if len(axes) != 2:
        raise ExportError(f"layer {path!r} resizes {len(axes)} axes; in a file it is one or two behind the channels")
    constants = {}
    for (places, shares), role, weights in zip(axes, ("rows", "columns"), ("row_weights", "column_weights"), strict=True):
        constants[role] = Constant.from_array(places.to(torch.int32).numpy())
        if shares is not None:
            constants[weights] = Constant.from_array(shares.to(torch.float32).numpy())
    return builder.node("resize2d", builder.unique(path), [x], shape, {}, constants, inexact=inexact)


def _emit(mode: str) -> Callable[[Use], Value]:
    def emit(use: Use) -> Value:
        x = use.first()
        axes = axes_of(x.shape[1:], use.shape[1:], use.args["scale_factors"], mode, use.args.get("align_corners"))
        if mode in NEAREST:
            factors = use.args["scale_factors"]
            if factors is not None and any(not float(factor).is_integer() for factor in factors):
                raise use.fail(
                    "which pixels are nearest by a broken factor depends on PyTorch's kernel; give size=, or use lobit.nn.Upsample"
                )
            return resize(use.builder, use.name, x, use.shape, axes)
        y = resize(use.builder, use.name, x, use.shape, axes, FOREIGN_RESIZE)
        use.builder.layer(y.name, "resize2d", "", x, FOREIGN_RESIZE)
        return y

    return emit


OPERATORS: dict[str, Callable[[Use], Value]] = {
    **{f"aten.upsample_nearest{axes}d.vec": _emit("nearest") for axes in (1, 2)},
    **{f"aten._upsample_nearest_exact{axes}d.vec": _emit("nearest-exact") for axes in (1, 2)},
    "aten.upsample_linear1d.vec": _emit("linear"),
    "aten.upsample_bilinear2d.vec": _emit("bilinear"),
}
"""By PyTorch's name of the operator."""
