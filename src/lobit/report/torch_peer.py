"""A float network as a PyTorch module, as one would deploy it: folded, with ReLUs in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.nn.resize import Axis, resized
from lobit.report.floatnet import FloatNet, FloatOp

Step = Callable[..., Tensor]


class FloatModule(nn.Module):
    """Runs the operators of a `FloatNet` in order; a value is dropped after its last use.

    Parameters
    ----------
    net : FloatNet
    """

    def __init__(self, net: FloatNet) -> None:
        super().__init__()
        self._inputs, self._outputs = tuple(net.inputs), net.outputs
        uses = Counter([name for op in net.ops for name in op.inputs] + list(net.outputs))
        made = {op.output: op for op in net.ops}
        last = {name: index for index, op in enumerate(net.ops) for name in op.inputs}
        self._steps: list[tuple[Step, tuple[str, ...], str, tuple[str, ...]]] = []
        for index, op in enumerate(net.ops):
            alone = uses[op.inputs[0]] == 1 and op.inputs[0] in made and made[op.inputs[0]].op not in ("lift", "flatten")
            done = tuple(name for name in op.inputs if last[name] == index and name not in net.outputs)
            arrays = {role: nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)), False) for role, array in op.arrays.items()}
            for role, array in arrays.items():
                self.register_parameter(f"{op.output}_{role}", array)
            self._steps.append((STEPS[op.op](op, arrays, alone), op.inputs, op.output, done))

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs: one tensor, or a tuple of them."""
        values = dict(zip(self._inputs, inputs, strict=True))
        for run, names, output, done in self._steps:
            values[output] = run(*[values[name] for name in names])
            for name in done:
                del values[name]
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found


def _linear(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda x: F.linear(x, arrays["weight"], arrays["bias"])


def _conv2d(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    ahead, pads = _split_padding(op)
    stride, dilation, groups = tuple(op.attrs["stride"]), tuple(op.attrs["dilation"]), op.attrs["groups"]

    def run(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, ahead) if ahead else x, arrays["weight"], arrays["bias"], stride, pads, dilation, groups)

    return run


def _affine(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    def run(x: Tensor) -> Tensor:
        return torch.addcmul(_per_channel(arrays["b"], x), x, _per_channel(arrays["a"], x))

    return run


def _clamp(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    low, high = arrays["low"], arrays["high"]
    if len(low) > 1 or len(high) > 1:
        return lambda x: torch.minimum(torch.maximum(x, _per_channel(low, x)), _per_channel(high, x))
    floor, ceiling = float(low), float(high)
    if floor == 0 and ceiling == float("inf"):
        return lambda x: F.relu(x, inplace=alone)
    return lambda x: F.hardtanh(x, floor, ceiling, inplace=alone)


def _max_pool2d(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    kernel, stride, dilation = (tuple(op.attrs[name]) for name in ("kernel", "stride", "dilation"))
    ahead, pads = _split_padding(op)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):  # more than PyTorch's pools take
        ahead, pads = _ends(op), (0, 0)

    def run(x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, ahead, value=-torch.inf) if ahead else x, kernel, stride, pads, dilation)

    return run


def _avg_pool2d(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    kernel, stride = (tuple(op.attrs[name]) for name in ("kernel", "stride"))
    ahead, pads = _split_padding(op)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        ahead, pads = _ends(op), (0, 0)

    def run(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, ahead) if ahead else x, kernel, stride, pads, divisor_override=op.attrs["divisor"])

    return run


def _add(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda x, y: x + y


def _flatten(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda x: x.flatten(1)


def _pad2d(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    ends, value = _ends(op), op.attrs["value"]
    return lambda x: F.pad(x, ends, value=value)


def _resize2d(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    tables, way = op.attrs["tables"], op.attrs["way"]
    size = (len(tables["rows"]), len(tables["columns"]))
    if way is not None:
        mode, corners = ("nearest", None) if way == "nearest" else ("bilinear", way == "corners")
        return lambda x: F.interpolate(x, size, mode=mode, align_corners=corners)
    names = (("rows", "row_weights"), ("columns", "column_weights"))
    given = [(torch.from_numpy(tables[at].astype(np.int64)), tables.get(share)) for at, share in names]
    axes = [Axis(places, None if shares is None else torch.from_numpy(shares.copy())) for places, shares in given]
    return lambda x: resized(x, axes)


def _concat(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda *x: torch.cat(x, 1)


def _lift(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda x: x.unsqueeze(2)


def _drop(op: FloatOp, arrays: dict[str, nn.Parameter], alone: bool) -> Step:
    return lambda x: x.squeeze(2)


def _per_channel(array: Tensor, x: Tensor) -> Tensor:
    return array.reshape(-1, *[1] * (x.ndim - 2))


def _ends(op: FloatOp) -> list[int]:
    """The whole padding as `F.pad` takes it: left, right, top, bottom."""
    top, left, bottom, right = op.attrs["padding"]
    return [left, right, top, bottom]


def _split_padding(op: FloatOp) -> tuple[list[int], tuple[int, int]]:
    """What is padded ahead, and what the operator pads itself: the same at both ends, or nothing."""
    top, left, bottom, right = op.attrs["padding"]
    return ([], (top, left)) if (top, left) == (bottom, right) else (_ends(op), (0, 0))


STEPS: dict[str, Callable[[FloatOp, dict[str, nn.Parameter], bool], Step]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "affine": _affine,
    "clamp": _clamp,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "add": _add,
    "flatten": _flatten,
    "pad2d": _pad2d,
    "resize2d": _resize2d,
    "lift": _lift,
    "drop": _drop,
    "concat": _concat,
}
