"""Verification: the PyTorch model and the packed network run side by side, their codes compared layer by layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lobit.capture.cut import cut_at
from lobit.capture.merged import without_merged_padding
from lobit.capture.trace import Example, as_tuple, check_model
from lobit.errors import ConfigError, LobitError
from lobit.format import Graph
from lobit.nn import QuantizedLayer
from lobit.runtime import Session, load
from lobit.runtime.inputs import check_inputs
from lobit.runtime.report import shorten

INEXACT_TOLERANCE = 1e-5
NAME = 32
"""Columns that the name of a layer may take in a table of 80."""
BATCH = 1000
MOVED_SHARE = 1e-3
"""How many codes right behind an inexact layer may stand on the other side of a rounding boundary: this share, and one where there are few."""


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One quantized layer's input codes: how many were compared, how many are equal, and the first that is not (index, PyTorch's, packed).

    Behind an inexact layer, ``moved`` counts the codes that differ when the packed network goes on from PyTorch's own codes before them, and ``far`` those
    of them that differ by more than one level.
    """

    name: str
    exact: bool
    compared: int
    equal: int
    first_difference: str
    moved: int = 0
    far: int = 0

    @property
    def ok(self) -> bool:
        """Whether all are equal; behind an inexact layer, whether those that differ are few and a level apart."""
        if self.exact:
            return self.equal == self.compared
        return not self.far and self.moved <= max(1.0, MOVED_SHARE * self.compared)


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One output: whether all bits agree, and the largest difference relative to the largest output."""

    name: str
    exact: bool
    equal: bool
    difference: float


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a comparison found; ``ok`` when exact layers and outputs agree to the bit and inexact outputs to 1e-5.

    Rounding in an inexact layer can move a code next to a rounding boundary, and with it all that follows. Where that happened, each part of the network
    was run again from PyTorch's own codes: inexact outputs, and the codes that count as moved, are of that run.
    """

    rows: tuple[CodeRow, ...]
    outputs: tuple[OutputRow, ...]
    batch: int

    @property
    def ok(self) -> bool:
        """Whether the packed network computes the same."""
        return all(row.ok for row in self.rows) and all(
            row.equal if row.exact else row.difference <= INEXACT_TOLERANCE for row in self.outputs
        )

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

    @property
    def verdict(self) -> str:
        """In words."""
        return "the same" if self.ok and not self.codes_moved else "the same up to inexact layers" if self.ok else "NOT the same"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {"ok": self.ok, "verdict": self.verdict, "compared": self.compared, "equal": self.equal, **asdict(self)}

    def __str__(self) -> str:
        names = [shorten(name, NAME) for name in (*(row.name for row in self.rows), *(out.name for out in self.outputs))]
        width = max([5, *map(len, names)])
        lines = [f"{'layer':<{width}}  {'codes':>12}  {'equal':>12}"]
        for name, row in zip(names, self.rows, strict=False):
            lines.append(f"{name:<{width}}  {row.compared:>12}  {row.equal:>12}{'' if row.exact else '  inexact'}")
            lines += [f"  {row.first_difference}"] if row.first_difference else []
            lines += [f"  {row.moved} moved by itself, {row.far} of them far"] if row.moved else []
        for name, out in zip(names[len(self.rows) :], self.outputs, strict=True):
            lines.append(
                f"{name:<{width}}  output: {'all bits equal' if out.equal else f'largest relative difference {out.difference:.2g}'}"
            )
        return "\n".join([*lines, f"{self.equal} of {self.compared} codes equal over {self.batch} samples: {self.verdict}"])


def verify(
    model: nn.Module,
    packed: str | os.PathLike[str] | Session,
    x: Example,
    *,
    batch: int = BATCH,
    progress: Callable[[int, int], object] | None = None,
) -> VerifyReport:
    """Compare the eval model with its packed network on ``x``, batch by batch: the codes of no more than one are in memory.

    Parameters
    ----------
    model : nn.Module
        In eval mode, on the CPU, float32.
    packed : path-like or Session
        The file that `lobit.export` wrote.
    x : Tensor or tuple of Tensor
        float32, with a batch axis.
    batch : int
        Samples that run together.
    progress : callable, optional
        Called with the samples done and those of all.

    Raises
    ------
    LobitError
        When the file is not of this model: it lacks a layer, or shapes differ.
    ConfigError
        For a batch below one.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    check_model(model)
    inputs = as_tuple(x)
    session = packed if isinstance(packed, Session) else load(packed)
    check_inputs(session.graph.inputs, [value.numpy() for value in inputs])
    count = len(inputs[0])
    reports = []
    for start in range(0, max(count, 1), batch):
        reports.append(_verify_batch(model, session, tuple(value[start : start + batch] for value in inputs), start))
        if progress is not None:
            progress(min(start + batch, count), count)
    return _joined(reports)


def _joined(reports: Sequence[VerifyReport]) -> VerifyReport:
    """Several batches as one: counts add up, the first difference stays, the largest of the outputs counts."""
    rows = []
    for parts in zip(*(report.rows for report in reports), strict=True):
        first = next((part.first_difference for part in parts if part.first_difference), "")
        sums = [sum(getattr(part, name) for part in parts) for name in ("compared", "equal", "moved", "far")]
        rows.append(CodeRow(parts[0].name, parts[0].exact, sums[0], sums[1], first, sums[2], sums[3]))
    outputs = [
        OutputRow(parts[0].name, parts[0].exact, all(part.equal for part in parts), max(part.difference for part in parts))
        for parts in zip(*(report.outputs for report in reports), strict=True)
    ]
    return VerifyReport(tuple(rows), tuple(outputs), sum(report.batch for report in reports))


def _verify_batch(model: nn.Module, session: Session, inputs: tuple[Tensor, ...], start: int) -> VerifyReport:
    """One batch; ``start`` is its first sample's place among all."""
    _, arrays = check_inputs(session.graph.inputs, [value.numpy() for value in inputs])
    recorded, outputs = run_model(model, inputs)
    names = value_names(session.graph, recorded)
    codes = {
        name: without_merged_padding(session.graph, name, model.get_submodule(path), ours)
        for path, calls in recorded.items()
        for name, ours in zip(names[path], calls, strict=True)
    }
    if len(session.graph.outputs) != len(outputs):
        raise LobitError(f"the model has {len(outputs)} outputs, the file {len(session.graph.outputs)}; it is not a file of this model")
    packed_codes = session.run_values(arrays, list(codes))
    tainted = inexact_values(session.graph)
    rows = [_code_row(name, name not in tainted, ours, packed_codes[name], start) for name, ours in codes.items()]
    found = _outputs(session, arrays)
    if any(row.equal != row.compared for row in rows if not row.exact):
        given = {name: ours for name, ours in codes.items() if name in tainted}
        made, found = _resume(session, arrays, given)
        rows = [_with_moved(row, codes[row.name], made[row.name], session.graph) if row.name in made else row for row in rows]
    pairs = zip(session.graph.outputs, outputs, found, strict=True)
    return VerifyReport(
        tuple(rows), tuple(_output_row(name, name not in tainted, ours, theirs) for name, ours, theirs in pairs), len(inputs[0])
    )


def _outputs(session: Session, arrays: list[NDArray[np.float32]]) -> list[NDArray[Any]]:
    found = session(*arrays)
    return list(found) if isinstance(found, tuple) else [found]


def _resume(
    session: Session, arrays: list[NDArray[np.float32]], given: Mapping[str, NDArray[np.int16]]
) -> tuple[dict[str, NDArray[np.int16]], list[NDArray[Any]]]:
    """The codes and the outputs that the network makes where it goes on from given codes."""
    graph = session.graph
    cut = Session(cut_at(graph, list(given)), threads=session.threads, isa=session.isa)
    reals = [(codes - graph.types[name].zero).astype(np.float32) for name, codes in given.items()]
    found = _outputs(cut, [*arrays, *reals])
    count = len(graph.outputs)
    return dict(zip(given, found[count:], strict=True)), found[:count]


def _with_moved(row: CodeRow, ours: NDArray[np.int16], made: NDArray[np.int16], graph: Graph) -> CodeRow:
    code = graph.types[row.name].code
    assert code is not None  # the value holds a layer's codes
    apart = np.abs(np.searchsorted(code.levels, ours) - np.searchsorted(code.levels, made))
    return replace(row, moved=int((apart > 0).sum()), far=int((apart > 1).sum()))


def run_model(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, list[NDArray[np.int16]]], list[NDArray[np.float32]]]:
    """Outputs of the eval model, and the input codes of each quantized layer by path, once for each call of it."""
    recorded: dict[str, list[NDArray[np.int16]]] = {}
    with _recording(model, recorded), torch.inference_mode(), torch.autocast("cpu", enabled=False):
        result = model(*inputs)
    leaves = tree_leaves(result)
    if any(not isinstance(value, Tensor) for value in leaves):
        raise LobitError("the model returns something that is not a tensor; it must return tensors, one or several")
    return recorded, [value.numpy() for value in leaves]


@contextmanager
def _recording(model: nn.Module, recorded: dict[str, list[NDArray[np.int16]]]) -> Iterator[None]:
    running: list[str] = []  # paths of the layers: one quantizer may serve several

    def enter(path: str, module: nn.Module, args: Any) -> None:
        running.append(path)

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        running.pop()

    def keep(module: nn.Module, args: Any, result: Any) -> None:
        if running:
            recorded.setdefault(running[-1], []).append(result.codes.to(torch.int16).numpy())

    layers = {
        path: module for path, module in model.named_modules() if isinstance(module, QuantizedLayer) and module.input_quantizer is not None
    }
    hooks = [quantizer.register_forward_hook(keep) for quantizer in {layer.input_quantizer for layer in layers.values()} if quantizer]
    for path, layer in layers.items():
        hooks += [layer.register_forward_pre_hook(partial(enter, path)), layer.register_forward_hook(leave, always_call=True)]
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
    """Values that depend on an inexact operator, or on a value that the exporter marked so."""
    from lobit.format import OPERATORS

    marked = set(_marked(graph))
    tainted: set[str] = set()
    for node in graph.nodes:
        if node.output in marked or not OPERATORS[node.op].exact or tainted.intersection(node.inputs):
            tainted.add(node.output)
    return tainted


def _marked(graph: Graph) -> list[str]:
    import json

    try:
        listed = json.loads(graph.meta.get("inexact", "[]"))
    except ValueError:
        return []
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _code_row(name: str, exact: bool, ours: NDArray[np.int16], theirs: NDArray[np.int16], start: int = 0) -> CodeRow:
    if ours.shape != theirs.shape:
        raise LobitError(
            f"the codes {name!r} have shape {theirs.shape} in the file, {ours.shape} in the model; it is not a file of this model"
        )
    different = np.argwhere(ours != theirs)
    first = ""
    if len(different):
        at = tuple(int(i) for i in different[0])
        first = f"at {(at[0] + start, *at[1:])}: {ours[at]} in PyTorch, {theirs[at]} packed"
    return CodeRow(name, exact, ours.size, ours.size - len(different), first)


def _output_row(name: str, exact: bool, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> OutputRow:
    if ours.shape != theirs.shape:
        raise LobitError(f"output {name!r} has shape {theirs.shape} in the file, {ours.shape} in the model; it is not a file of this model")
    gap = float(np.abs(ours - theirs).max(initial=0.0)) / max(float(np.abs(ours).max(initial=0.0)), 1e-30)
    return OutputRow(name, exact, bool(np.array_equal(ours, theirs)), gap)
