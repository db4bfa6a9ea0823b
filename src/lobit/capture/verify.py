"""Verification: the PyTorch model and the packed network run side by side, their codes compared layer by layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lobit.capture.trace import Example, as_tuple, check_model
from lobit.errors import LobitError
from lobit.format import Graph
from lobit.nn import QuantizedLayer
from lobit.runtime import Session, load

INEXACT_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One quantized layer's input codes: how many were compared, how many are equal, and the first that is not (index, PyTorch's, packed)."""

    name: str
    exact: bool
    compared: int
    equal: int
    first_difference: str


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One output: whether all bits agree, and the largest difference relative to the largest output."""

    name: str
    exact: bool
    equal: bool
    difference: float


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a comparison found; ``ok`` when exact layers and outputs agree to the bit and inexact outputs to 1e-5."""

    rows: tuple[CodeRow, ...]
    outputs: tuple[OutputRow, ...]
    batch: int

    @property
    def ok(self) -> bool:
        """Whether the packed network computes the same."""
        codes = all(row.equal == row.compared for row in self.rows if row.exact)
        # an inexact float next to a rounding boundary moves a code, and with it the output: those are counted, not held against the file
        return codes and all(row.equal if row.exact else row.difference <= INEXACT_TOLERANCE or self.codes_moved for row in self.outputs)

    @property
    def codes_moved(self) -> bool:
        """Whether a code behind an inexact layer differs."""
        return any(row.equal != row.compared for row in self.rows if not row.exact)

    @property
    def compared(self) -> int:
        """Codes compared in all."""
        return sum(row.compared for row in self.rows)

    @property
    def equal(self) -> int:
        """Codes equal in all."""
        return sum(row.equal for row in self.rows)

    def __str__(self) -> str:
        width = max([5, *(len(row.name) for row in self.rows), *(len(out.name) for out in self.outputs)])
        lines = [f"{'layer':<{width}}  {'codes':>10}  {'equal':>10}"]
        for row in self.rows:
            lines.append(
                f"{row.name:<{width}}  {row.compared:>10}  {row.equal:>10}{'' if row.exact else '  inexact'}  {row.first_difference}".rstrip()
            )
        for out in self.outputs:
            lines.append(
                f"{out.name:<{width}}  output: {'all bits equal' if out.equal else f'largest relative difference {out.difference:.2g}'}"
            )
        verdict = "the same" if self.ok and not self.codes_moved else "the same up to inexact layers" if self.ok else "NOT the same"
        return "\n".join([*lines, f"{self.equal} of {self.compared} codes equal over {self.batch} samples: {verdict}"])


def verify(model: nn.Module, packed: str | os.PathLike[str] | Session, x: Example) -> VerifyReport:
    """Compare the eval model with its packed network on ``x``.

    Parameters
    ----------
    model : nn.Module
        In eval mode, on the CPU, float32.
    packed : path-like or Session
        The file that `lobit.export` wrote.
    x : Tensor or tuple of Tensor
        float32, with a batch axis.

    Raises
    ------
    LobitError
        When the file is not of this model: it lacks a layer, or shapes differ.
    """
    check_model(model)
    inputs = as_tuple(x)
    session = packed if isinstance(packed, Session) else load(packed)
    recorded, outputs = run_model(model, inputs)
    names = value_names(session.graph, recorded)
    arrays = [value.numpy() for value in inputs]
    packed_codes = session.run_values(arrays, [name for path in names for name in names[path]])
    packed_outputs = session(*arrays)
    tainted = inexact_values(session.graph)
    rows = [
        _code_row(name, name not in tainted, ours, packed_codes[name])
        for path, calls in recorded.items()
        for name, ours in zip(names[path], calls, strict=True)
    ]
    found = packed_outputs if isinstance(packed_outputs, tuple) else (packed_outputs,)
    if len(found) != len(outputs):
        raise LobitError(f"the model has {len(outputs)} outputs, the file {len(found)}; it is not a file of this model")
    pairs = zip(session.graph.outputs, outputs, found, strict=True)
    return VerifyReport(
        tuple(rows), tuple(_output_row(name, name not in tainted, ours, theirs) for name, ours, theirs in pairs), len(inputs[0])
    )


def run_model(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, list[NDArray[np.int16]]], list[NDArray[np.float32]]]:
    """Outputs of the eval model, and the input codes of each quantized layer by path, once for each call of it."""
    recorded: dict[str, list[NDArray[np.int16]]] = {}
    with _recording(model, recorded), torch.inference_mode(), torch.autocast("cpu", enabled=False):
        result = model(*inputs)
    return recorded, [value.numpy() for value in (result if isinstance(result, (tuple, list)) else (result,))]


@contextmanager
def _recording(model: nn.Module, recorded: dict[str, list[NDArray[np.int16]]]) -> Iterator[None]:
    def keep(path: str, module: nn.Module, args: Any, result: Any) -> None:
        recorded.setdefault(path, []).append(result.codes.to(torch.int16).numpy())

    hooks = [
        module.input_quantizer.register_forward_hook(partial(keep, path))
        for path, module in model.named_modules()
        if isinstance(module, QuantizedLayer) and module.input_quantizer is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def value_names(graph: Graph, recorded: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """The values of the graph that hold each layer's input codes: ``path.input``, ``path.input@2`` for its second use, and so on."""
    names = {
        path: [f"{path}.input" if call == 0 else f"{path}.input@{call + 1}" for call in range(len(calls))]
        for path, calls in recorded.items()
    }
    for path, values in names.items():
        if missing := [name for name in values if name not in graph.types]:
            raise LobitError(f"the file has no value {missing[0]!r} for layer {path!r}; it is not a file of this model")
    return names


def inexact_values(graph: Graph) -> set[str]:
    """Values that depend on an inexact operator, or on a layer that the exporter marked so."""
    from lobit.format import OPERATORS

    marked = set(_marked(graph))
    tainted: set[str] = set()
    for node in graph.nodes:
        if node.name in marked or not OPERATORS[node.op].exact or tainted.intersection(node.inputs):
            tainted.add(node.output)
    return tainted


def _marked(graph: Graph) -> list[str]:
    import json

    try:
        listed = json.loads(graph.meta.get("inexact", "[]"))
    except ValueError:
        return []
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _code_row(name: str, exact: bool, ours: NDArray[np.int16], theirs: NDArray[np.int16]) -> CodeRow:
    if ours.shape != theirs.shape:
        raise LobitError(
            f"the codes {name!r} have shape {theirs.shape} in the file, {ours.shape} in the model; it is not a file of this model"
        )
    different = np.argwhere(ours != theirs)
    first = ""
    if len(different):
        at = tuple(int(i) for i in different[0])
        first = f"at {at}: {ours[at]} in PyTorch, {theirs[at]} packed"
    return CodeRow(name, exact, ours.size, ours.size - len(different), first)


def _output_row(name: str, exact: bool, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> OutputRow:
    if ours.shape != theirs.shape:
        raise LobitError(f"output {name!r} has shape {theirs.shape} in the file, {ours.shape} in the model; it is not a file of this model")
    gap = float(np.abs(ours - theirs).max(initial=0.0)) / max(float(np.abs(ours).max(initial=0.0)), 1e-30)
    return OutputRow(name, exact, bool(np.array_equal(ours, theirs)), gap)
