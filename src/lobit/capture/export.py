"""Export: capture, check, verify the bytes with the runtime, and only then write them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lobit.capture.builder import Layer
from lobit.capture.capture import Captured, capture
from lobit.capture.trace import Example, checked_inputs
from lobit.capture.verify import VerifyReport, run_model, verify
from lobit.errors import ExportError
from lobit.format import About, file_bytes
from lobit.format.file import check_target, put_in_place, read_bytes
from lobit.runtime import Session


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: the layers, the bytes, and what the verification found."""

    path: str
    layers: tuple[Layer, ...]
    file_bytes: int
    verification: VerifyReport

    @property
    def weight_bytes(self) -> int:
        """Weights as stored."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """The same weights as float32."""
        return sum(layer.float_bytes for layer in self.layers)

    @property
    def inexact(self) -> tuple[str, ...]:
        """Names of the layers whose numbers may differ in the last place."""
        return tuple(layer.name for layer in self.layers if layer.inexact)

    def __str__(self) -> str:
        width = max([5, *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':<{width}}  {'operator':<10}  {'bits':<6}  {'bytes':>9}  {'as fp32':>9}"]
        for layer in self.layers:
            sizes = f"{layer.weight_bytes:>9}  {layer.float_bytes:>9}" if layer.float_bytes else f"{'':>9}  {'':>9}"
            why = (
                f"  inexact: {layer.inexact}" if layer.inexact and layer.causes_it else "  after an inexact layer" if layer.inexact else ""
            )
            lines.append(f"{layer.name:<{width}}  {layer.op:<10}  {layer.bits:<6}  {sizes}{why}".rstrip())
        ratio = f", {self.float_bytes / self.weight_bytes:.1f} times less than float32" if self.weight_bytes else ""
        lines.append(f"weights {self.weight_bytes} bytes{ratio}; file {self.file_bytes} bytes: {self.path}")
        return "\n".join([*lines, str(self.verification).splitlines()[-1]])


def export(
    model: nn.Module, example: Example, path: str | os.PathLike[str], *, strict: bool = False, about: About | None = None
) -> ExportReport:
    """Export a model in eval mode to a ``.lobit`` file.

    Parameters
    ----------
    model : nn.Module
        In eval mode, on the CPU, float32; it is left as it was.
    example : Tensor or tuple of Tensor
        float32 input with a batch axis; it fixes all sizes but the batch, and is what the file is verified with.
    path : path-like
        The file to write; it appears whole, after the verification, or not at all.
    strict : bool
        Refuse layers outside the exact class.
    about : About, optional
        What the file shall say of its use: data set, scaling of pixels, names of the classes. `lobit run` and `lobit eval` read it.

    Raises
    ------
    ExportError
        When the model cannot be exported, the file not written, or the packed network does not compute the same.
    ShapeError
        For an example of a wrong dtype or shape.
    """
    inputs = checked_inputs(model, example)
    check_target(path)
    captured = capture(model, inputs)
    inexact = [layer for layer in captured.layers if layer.inexact and layer.causes_it]
    if strict and inexact:
        listed = "; ".join(f"{layer.name!r}: {layer.inexact}" for layer in inexact)
        raise ExportError(f"strict export refuses layers outside the exact class: {listed}. Quantize them, or export with strict=False")
    _refuse_dead_layers(model, inputs, captured)
    graph = captured.graph if about is None else replace(captured.graph, meta={**captured.graph.meta, **about.meta()})
    data = file_bytes(graph)
    session = Session(read_bytes(data))
    reports = [verify(model, session, batch) for batch in _batches(inputs)]
    for report in reports:
        if not report.ok:
            raise ExportError(f"the packed network does not compute what the model does; nothing was written:\n{report}")
    put_in_place(path, data)
    return ExportReport(os.fspath(path), captured.layers, len(data), reports[0])


def _refuse_dead_layers(model: nn.Module, inputs: tuple[Tensor, ...], captured: Captured) -> None:
    for path, calls in run_model(model, inputs)[0].items():
        if len(calls) != len(captured.codes.get(path, ())):
            raise ExportError(f"layer {path!r} runs, but no output depends on it; return what it computes, or do not call it in eval mode")


def _batches(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The example, its first row alone, and its rows with noise as large as themselves."""
    generator = torch.Generator().manual_seed(0)
    most = torch.finfo(torch.float32).max
    noisy = tuple((x + x.double().std(correction=0) * torch.randn(x.shape, generator=generator)).clamp(-most, most).float() for x in inputs)
    return [inputs, tuple(x[:1] for x in inputs), noisy]
