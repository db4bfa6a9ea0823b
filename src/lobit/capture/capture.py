"""From an eval model to a checked graph with its passes run, and what the reports say of each layer."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch import fx, nn

from lobit.capture.builder import GraphBuilder, Layer, Value
from lobit.capture.layers import emit_layer
from lobit.capture.operators import emit_operator
from lobit.capture.passes import run_passes
from lobit.capture.trace import Traced, check_model, trace
from lobit.capture.use import output_shape
from lobit.errors import ExportError, FormatError
from lobit.format import Graph

IGNORED = ("aten.sym_size.int", "aten._assert_tensor_metadata.default", "aten._assert_scalar.default")


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, its layers in order, and the values that hold each quantized layer's input codes, by the layer's path."""

    graph: Graph
    layers: tuple[Layer, ...]
    codes: dict[str, list[str]]


@torch.no_grad()
def capture(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Captured:
    """Capture a model in eval mode; the model is left as it was.

    Raises
    ------
    ExportError
        Naming the module or operator that stands in the way.
    """
    check_model(model)
    traced = trace(model, inputs)
    builder = GraphBuilder()
    codes: dict[str, list[str]] = {}
    inexact: set[str] = set()
    outputs = _emit(builder, traced, codes, inexact)
    try:
        graph = run_passes(builder.graph(outputs, {}))
    except FormatError as error:
        raise ExportError(f"the model does not fit the file's operators: {error}") from error
    kept = {node.output for node in graph.nodes}
    if lost := [name for names in codes.values() for name in names if name not in kept]:
        raise ExportError(f"no output depends on the value {lost[0]!r}; return what its layer computes, or do not call it in eval mode")
    inexact.update(name for name, value in zip(graph.outputs, outputs, strict=True) if value.inexact)
    graph = replace(graph, meta={"inexact": json.dumps(sorted(inexact))})
    return Captured(graph, tuple(builder.layers), codes)


def _emit(builder: GraphBuilder, traced: Traced, codes: dict[str, list[str]], inexact: set[str]) -> list[Value]:
    """Append every node; collect the codes of each layer by path, and those of them that are inexact. The passes keep their names."""
    values: dict[fx.Node, Value] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            if node.name in traced.inputs:
                values[node] = builder.input(node.name, output_shape(node))
        elif node.op == "output":
            return _outputs(node, values)
        elif str(node.target) == "lobit.layer.default":
            x, path = node.args
            if not path:
                raise ExportError("the model is one layer by itself, which has no name in a file; wrap it: torch.nn.Sequential(layer)")
            if x not in values:
                raise ExportError(f"layer {path!r} works on a constant, not on the model's input")
            before = len(builder.nodes)
            values[node] = emit_layer(builder, path, traced.layers[path], values[x], output_shape(node))
            made = [new.output for new in builder.nodes[before:] if new.op == "chain" and new.attrs.get("code") is not None]
            made = [name for name in made if not name.startswith(f"{path}.ones")]
            if made:
                codes.setdefault(path, []).extend(made)
                inexact.update(made if values[x].inexact else ())
        elif node.target is getitem and node.args[0] in values and node.args[1] == 0:
            values[node] = values[node.args[0]]  # the first of several results
        elif str(node.target) not in IGNORED:
            values[node] = emit_operator(node, builder, values, traced.tensors)
    raise ExportError("the model has no output")


def _outputs(node: fx.Node, values: dict[fx.Node, Value]) -> list[Value]:
    given: Any = node.args[0]
    flat = list(given) if isinstance(given, (tuple, list)) else [given]
    if not flat or any(not isinstance(item, fx.Node) or item not in values for item in flat):
        raise ExportError("the model must return tensors that it computes from its input, one or a tuple of them")
    return [values[item] for item in flat]
