"""The graph as JSON text, canonical: the same graph gives the same text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lobit.bits import CodeType
from lobit.errors import ConfigError, FormatError
from lobit.format.graph import Graph, Node, Step

MAX_RANK = 5
Claim = tuple[tuple[int, ...], CodeType | None]


def graph_to_text(graph: Graph) -> str:
    """Spell a graph, without the data of its constants."""
    constants = {
        name: {"shape": list(constant.shape), **({} if constant.code is None else {"code": str(constant.code)})}
        for name, constant in sorted(graph.constants.items())
    }
    return json.dumps(
        {
            "inputs": [[name, list(shape)] for name, shape in graph.inputs.items()],
            "outputs": list(graph.outputs),
            "nodes": [_node_to_json(node) for node in graph.nodes],
            "constants": constants,
            "meta": dict(sorted(graph.meta.items())),
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def _node_to_json(node: Node) -> dict[str, Any]:
    attrs = dict(node.attrs)
    if "steps" in attrs:
        attrs["steps"] = [[step.op] if step.operand is None else [step.op, step.operand] for step in attrs["steps"]]
    attrs = {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(attrs.items())}
    return {
        "op": node.op,
        "name": node.name,
        "inputs": list(node.inputs),
        "output": node.output,
        "attrs": attrs,
        "constants": dict(sorted(node.constants.items())),
    }


def graph_from_text(text: str) -> tuple[Graph, dict[str, Claim]]:
    """Read a graph and what it claims of its constants: shape and code type.

    Returns
    -------
    Graph
        Without constants; its types are not derived yet.
    dict of str to (shape, CodeType or None)

    Raises
    ------
    FormatError
        When the text is not the JSON of a graph.
    """
    try:
        raw = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the graph is not JSON ({error})") from None
    fields = _fields(raw, "the graph", inputs=list, outputs=list, nodes=list, constants=dict, meta=dict)
    inputs = {}
    for entry in fields["inputs"]:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)) or entry[0] in inputs:
            raise FormatError(f"an input is a name of its own and a shape, not {str(entry)[:60]}")
        inputs[entry[0]] = _shape(entry[1], f"input {entry[0]!r}")
    draft = Graph(
        inputs,
        [_node_from_json(node) for node in fields["nodes"]],
        _names(fields["outputs"], "outputs"),
        {},
        meta=_texts(fields["meta"], "meta"),
    )
    return draft, {name: _claim(name, claim) for name, claim in fields["constants"].items()}


def _node_from_json(raw: Any) -> Node:
    node = _fields(raw, "a node", op=str, name=str, inputs=list, output=str, attrs=dict, constants=dict)
    attrs = node["attrs"]
    if "steps" in attrs:
        steps = attrs["steps"]
        if not isinstance(steps, list) or not all(
            isinstance(step, list) and len(step) in (1, 2) and all(isinstance(s, str) for s in step) for step in steps
        ):
            raise FormatError(f"node {node['name']!r}: steps must be a list of [operation] or [operation, constant]")
        attrs = {**attrs, "steps": [Step(*step) for step in steps]}
    return Node(node["op"], node["name"], _names(node["inputs"], "inputs"), node["output"], attrs, _texts(node["constants"], "constants"))


def _claim(name: str, raw: Any) -> Claim:
    if not isinstance(raw, dict) or not {"shape"} <= set(raw) <= {"shape", "code"}:
        raise FormatError(f"constant {name[:80]!r} must state a shape, and a code for codes")
    shape = _shape(raw["shape"], f"constant {name[:80]!r}")
    if "code" not in raw:
        return shape, None
    if len(shape) < 2:
        raise FormatError(f"constant {name[:80]!r}: codes have at least two axes, not {shape}")
    try:
        return shape, CodeType.parse(raw["code"])
    except ConfigError as error:
        raise FormatError(f"constant {name[:80]!r}: {error}") from None


def _shape(raw: Any, what: str) -> tuple[int, ...]:
    if (
        not isinstance(raw, list)
        or not 1 <= len(raw) <= MAX_RANK
        or not all(type(n) is int and 0 < n < 2**31 for n in raw)
        or math.prod(raw) >= 2**40
    ):
        raise FormatError(f"{what}: a shape is 1 to {MAX_RANK} counts, not {str(raw)[:60]}")
    return tuple(raw)


def _fields(raw: Any, what: str, **kinds: type) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != set(kinds) or not all(isinstance(raw[name], kind) for name, kind in kinds.items()):
        wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise FormatError(f"{what} must hold {wanted}")
    return raw


def _names(raw: list[Any], what: str) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in raw):
        raise FormatError(f"{what} must be names")
    return tuple(raw)


def _texts(raw: Mapping[str, Any], what: str) -> dict[str, str]:
    if not all(isinstance(text, str) for text in raw.values()):
        raise FormatError(f"{what} must map text to text")
    return dict(raw)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")
