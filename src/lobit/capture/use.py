"""One use of a PyTorch operator while its graph is walked: what an emitter is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from lobit.capture.builder import GraphBuilder, Value
from lobit.errors import ExportError


@dataclass(frozen=True)
class Use:
    """One use of an operator: its node, its arguments by name, the graph under construction."""

    node: fx.Node
    builder: GraphBuilder
    values: Mapping[fx.Node, Value]
    tensors: Mapping[str, Tensor]
    args: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for its node: the module it stands in and what it is."""
        return f"{module_path(self.node)}{self.node.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The output's shape without the batch axis."""
        return output_shape(self.node)

    def fail(self, why: str) -> ExportError:
        """The error of this use, with where it stands."""
        return ExportError(f"operator {self.node.target} {where(self.node)}: {why}")

    def value(self, name: str) -> Value:
        """A computed argument."""
        return self.computed(self.args[name], name)

    def computed(self, given: Any, name: str) -> Value:
        """An entry of an argument that is computed."""
        if isinstance(given, fx.Node) and given in self.values:
            return self.values[given]
        raise self.fail(f"its argument {name!r} must be computed from the model's input")

    def first(self) -> Value:
        """The first argument, whatever the operator calls it."""
        return self.value("self" if "self" in self.args else "input")

    def tensor(self, name: str) -> Tensor | None:
        """An argument that is a parameter, a buffer or None."""
        given = self.args.get(name)
        if given is None:
            return None
        if isinstance(given, fx.Node) and given.name in self.tensors:
            return self.tensors[given.name]
        raise self.fail(f"its argument {name!r} must be a parameter or a buffer of the model")

    def chain(self, *steps: tuple[str, Any], inexact: str | None = None) -> Value:
        """Steps on the first argument."""
        named = [(op, f"c{index}", operand) for index, (op, operand) in enumerate(steps)]
        return self.builder.chain(self.name, self.first(), named, inexact=inexact)


def module_path(node: fx.Node) -> str:
    """Path of the module that an operator stands in, with a final dot; empty at the top."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    return f"{path}." if path and path != "L['self']" else ""


def where(node: fx.Node) -> str:
    """The module and the source line an operator stands in."""
    path = module_path(node).rstrip(".")
    lines = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    return f"in {f'module {path!r}' if path else 'the model'}" + (f" ({lines[-1]})" if lines else "")


def result(node: fx.Node) -> Tensor:
    """What an operator makes, as a tensor without data; its first result where it has several."""
    value = node.meta["val"]
    return value[0] if isinstance(value, (tuple, list)) else value  # type: ignore[no-any-return]


def output_shape(node: fx.Node) -> tuple[int, ...]:
    """Shape without the batch axis; sizes other than the batch are fixed by the example."""
    return tuple(int(size) for size in result(node).shape[1:])
