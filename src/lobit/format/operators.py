"""The operators of a graph: one table entry each, with its attributes, its constants and its type rule.

`check_graph` derives the type of every value from this table; a file's own claims are never trusted. What each operator computes stands in
docs/architecture.md, "The graph".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError, FormatError
from lobit.format.geometry import MAX_EXTENT, Window, flatten_shape, window_of
from lobit.format.graph import Constant, Graph, Node, Step, ValueType

MAX_NODES = 20_000
MAX_CONSTANTS = 50_000
MAX_NAME = 512
MAX_STEPS = 1024
MAX_SUM = 2**31 - 1
MAX_VALUES = 2**28
UNARY_STEPS = ("to_float", "round")
BINARY_STEPS = ("add", "sub", "mul", "div", "max", "min")


@dataclass(frozen=True, slots=True)
class Call:
    """A node with what its type rule needs: input types, constants by role, and the names of the constants that hold a zero."""

    node: Node
    inputs: tuple[ValueType, ...]
    constants: Mapping[str, Constant]
    with_zeros: frozenset[str] = frozenset()

    def fail(self, why: str) -> FormatError:
        """The error of this node, named."""
        return FormatError(f"node {self.node.name!r} ({self.node.op}): {why}")

    def constant(self, role: str, kind: str) -> Constant:
        """The constant of a role, checked to be ``codes``, ``f32`` or ``i32``."""
        constant = self.constants.get(role)
        if constant is None:
            raise self.fail(f"needs a constant {role!r}")
        if kind_of(constant) != kind:
            raise self.fail(f"constant {role!r} must be {kind}, not {kind_of(constant)}")
        return constant


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: how many inputs, which attributes and constants it takes, whether it is exact, and its type rule."""

    name: str
    arity: int
    attrs: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    exact: bool
    infer: Callable[[Call], ValueType]


OPERATORS: dict[str, Operator] = {}


def _operator(
    name: str,
    arity: int,
    attrs: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    *,
    exact: bool = True,
) -> Callable[[Callable[[Call], ValueType]], Callable[[Call], ValueType]]:
    def enter(infer: Callable[[Call], ValueType]) -> Callable[[Call], ValueType]:
        OPERATORS[name] = Operator(name, arity, attrs, required, optional, exact, infer)
        return infer

    return enter


def kind_of(constant: Constant) -> str:
    """``codes``, ``f32`` or ``i32``."""
    return "codes" if constant.code is not None else {"f": "f32", "i": "i32"}[constant.data.dtype.kind]


def accumulator_bound(inputs: int, x: ValueType, weight: CodeType) -> int:
    """Largest magnitude of a sum of ``inputs`` products: ``inputs * max|code_x - zero| * max|code_w|``."""
    assert x.code is not None
    return inputs * max(abs(x.code.lo - x.zero), abs(x.code.hi - x.zero)) * weight.max_abs


def _code(call: Call) -> tuple[CodeType | None, int]:
    """The code type and zero that a chain or threshold makes."""
    text, zero = call.node.attrs.get("code"), call.node.attrs.get("zero", 0)
    if type(zero) is not int:
        raise call.fail(f"zero must be an integer, not {zero!r}")
    if text is None:
        if zero:
            raise call.fail("zero belongs to codes only")
        return None, 0
    try:
        code = CodeType.parse(text)
    except ConfigError as error:
        raise call.fail(str(error)) from None
    movable = code.alphabet in (Alphabet.UNSIGNED, Alphabet.SIGNED)
    if not (code.lo <= zero <= code.hi if movable else zero == 0):
        raise call.fail(f"zero of {code} must be {f'{code.lo}..{code.hi}' if movable else 0}, not {zero}")
    return code, zero


def _codes_in(call: Call) -> ValueType:
    x = call.inputs[0]
    if x.kind != "codes":
        raise call.fail(f"its input must be codes, not {x}")
    return x


def _kind_in(call: Call, *kinds: str) -> ValueType:
    x = call.inputs[0]
    if x.kind not in kinds:
        raise call.fail(f"its input must be {' or '.join(kinds)}, not {x}")
    return x


def _image(call: Call, x: ValueType) -> tuple[int, int, int]:
    if len(x.shape) != 3:
        raise call.fail(f"its input must have shape (C, H, W), not {x.shape}")
    return x.shape


@_operator("chain", 1, ("steps", "code", "zero"))
def _chain(call: Call) -> ValueType:
    x, steps = call.inputs[0], call.node.attrs.get("steps")
    if not isinstance(steps, (list, tuple)) or not all(isinstance(step, Step) for step in steps):
        raise call.fail("steps must be a list of [operation] or [operation, constant]")
    if len(steps) > MAX_STEPS:
        raise call.fail(f"it has {len(steps)} steps; the limit is {MAX_STEPS}")
    used: set[str] = set()
    for index, step in enumerate(steps):
        if step.op in BINARY_STEPS and step.operand is not None:
            _check_operand(call, x, step)
            used.add(step.operand)
        elif step.op not in UNARY_STEPS or step.operand is not None:
            raise call.fail(
                f"step {index}, {step.op!r}, is none of {', '.join(UNARY_STEPS)}, or of {', '.join(BINARY_STEPS)} with a constant"
            )
        if (step.op == "to_float") != (index == 0 and x.kind != "f32"):
            raise call.fail("to_float stands first, and only, where the input is codes or i32")
    if x.kind != "f32" and not steps:
        raise call.fail("its input is not f32, so its first step must be to_float")
    if used != set(call.constants):
        raise call.fail(f"constants {sorted(set(call.constants) - used)} are not used by its steps")
    code, zero = _code(call)
    if code is None:
        return ValueType("f32", x.shape)
    if code.alphabet is Alphabet.LOG2 or (code.alphabet is Alphabet.ODD and code.bits > 1):
        raise call.fail(f"no rounding to {code} is defined for activations")
    return ValueType("codes", x.shape, code, zero)


def _check_operand(call: Call, x: ValueType, step: Step) -> None:
    assert step.operand is not None
    constant = call.constant(step.operand, "f32")
    if constant.shape not in ((1,), (x.shape[0],)):
        raise call.fail(f"constant {step.operand!r} has shape {constant.shape}; it must be (1,) or ({x.shape[0]},)")
    if step.op == "div" and call.node.constants[step.operand] in call.with_zeros:
        raise call.fail(f"constant {step.operand!r} divides by zero")


def _weight(call: Call, shape: tuple[int | None, ...], x: ValueType) -> Constant:
    weight = call.constant("weight", "codes" if x.kind == "codes" else "f32")
    if len(weight.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, weight.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise call.fail(f"weight has shape {weight.shape}; its input {x} needs ({wanted})")
    if x.kind == "f32":
        _check_bias(call, weight.shape[0])
        return weight
    assert weight.code is not None
    bound = accumulator_bound(math.prod(weight.shape[1:]), x, weight.code)
    if bound > MAX_SUM:
        raise call.fail(f"its sums can reach {bound}, beyond 32 bits ({MAX_SUM}); use fewer inputs or bits")
    return weight


def _check_bias(call: Call, rows: int) -> None:
    if "bias" in call.constants:
        bias = call.constant("bias", "f32")
        if bias.shape != (rows,):
            raise call.fail(f"bias must be {rows} floats; its shape is {bias.shape}")


def _linear_shape(call: Call, x: ValueType) -> tuple[int, ...]:
    if len(x.shape) != 1:
        raise call.fail(f"its input must have shape (K,), not {x.shape}; flatten it first")
    return (_weight(call, (None, x.shape[0]), x).shape[0],)


def _conv_shape(call: Call, x: ValueType) -> tuple[int, ...]:
    channels, *_ = _image(call, x)
    groups = call.node.attrs.get("groups")
    if type(groups) is not int or groups < 1 or channels % groups:
        raise call.fail(f"groups must divide the {channels} input channels, not {groups!r}")
    weight = _weight(call, (None, channels // groups, None, None), x)
    if weight.shape[0] % groups:
        raise call.fail(f"groups {groups} must divide the {weight.shape[0]} output channels")
    window = _window(call, kernel=list(weight.shape[2:]))
    return (weight.shape[0], *window.output_size(x.shape[1:]))


def _window(call: Call, **known: Any) -> Window:
    try:
        window = window_of({**call.node.attrs, **known})
        window.output_size(call.inputs[0].shape[1:])
    except ValueError as error:
        raise call.fail(str(error)) from None
    padded = window.padded_size(call.inputs[0].shape[1:])
    if call.inputs[0].shape[0] * math.prod(padded) > MAX_VALUES:
        raise call.fail(f"its padded image {padded} is beyond 2^28 values")
    return window


@_operator("linear", 1, (), ("weight",))
def _linear(call: Call) -> ValueType:
    return ValueType("i32", _linear_shape(call, _codes_in(call)))


@_operator("conv2d", 1, ("stride", "padding", "dilation", "groups"), ("weight",))
def _conv2d(call: Call) -> ValueType:
    return ValueType("i32", _conv_shape(call, _codes_in(call)))


@_operator("linear_f32", 1, (), ("weight",), ("bias",), exact=False)
def _linear_f32(call: Call) -> ValueType:
    return ValueType("f32", _linear_shape(call, _kind_in(call, "f32")))


@_operator("conv2d_f32", 1, ("stride", "padding", "dilation", "groups"), ("weight",), ("bias",), exact=False)
def _conv2d_f32(call: Call) -> ValueType:
    return ValueType("f32", _conv_shape(call, _kind_in(call, "f32")))


@_operator("threshold", 1, ("code", "zero"), ("thresholds", "direction"))
def _threshold(call: Call) -> ValueType:
    x = _kind_in(call, "i32")
    code, zero = _code(call)
    if code is None or code.bits > 2 or code.alphabet is Alphabet.LOG2:
        raise call.fail(f"it makes uniform codes of 1 or 2 bits, not {code}")
    channels, steps = x.shape[0], len(code.levels) - 1
    if call.constant("thresholds", "i32").shape != (channels, steps):
        raise call.fail(f"thresholds must have shape ({channels}, {steps}), not {call.constants['thresholds'].shape}")
    direction = call.constant("direction", "i32")
    if direction.shape != (channels,) or not np.isin(direction.data, (-1, 1)).all():
        raise call.fail(f"direction must be {channels} values of +1 or -1")
    return ValueType("codes", x.shape, code, zero)


@_operator("max_pool2d", 1, ("kernel", "stride", "padding", "dilation"))
def _max_pool2d(call: Call) -> ValueType:
    x = call.inputs[0]
    channels, *size = _image(call, x)
    window = _window(call)
    if not window.always_meets(size):
        raise call.fail("some of its windows lie wholly in the padding; use less padding")
    return replace(x, shape=(channels, *window.output_size(size)))


@_operator("avg_pool2d", 1, ("kernel", "stride", "padding", "divisor"))
def _avg_pool2d(call: Call) -> ValueType:
    x = _kind_in(call, "f32")
    channels, *size = _image(call, x)
    divisor = call.node.attrs.get("divisor")
    if type(divisor) is not int or not 1 <= divisor <= 2**24:
        raise call.fail(f"divisor must be an integer from 1 to 2^24, not {divisor!r}")
    return replace(x, shape=(channels, *_window(call, dilation=[1, 1]).output_size(size)))


@_operator("add", 2)
def _add(call: Call) -> ValueType:
    a, b = call.inputs
    if a.kind != "f32" or a != b:
        raise call.fail(f"it adds two f32 values of one shape, not {a} and {b}")
    return a


@_operator("flatten", 1)
def _flatten(call: Call) -> ValueType:
    x = call.inputs[0]
    return replace(x, shape=flatten_shape(_image(call, x)))


def check_graph(graph: Graph) -> Graph:
    """Check a graph against the table and derive the type of every value.

    Returns
    -------
    Graph
        The same graph with ``types`` filled in.

    Raises
    ------
    FormatError
        Naming the node and what is wrong with it.
    """
    if len(graph.nodes) > MAX_NODES or len(graph.constants) > MAX_CONSTANTS:
        raise FormatError(f"{len(graph.nodes)} nodes and {len(graph.constants)} constants; the limits are {MAX_NODES} and {MAX_CONSTANTS}")
    for name, constant in graph.constants.items():
        if constant.data.dtype.kind == "f" and not np.isfinite(constant.data).all():
            raise FormatError(f"constant {name!r} is not finite")
    with_zeros = frozenset(name for name, c in graph.constants.items() if c.data.dtype.kind == "f" and not c.data.all())
    types: dict[str, ValueType] = {}
    for name, shape in graph.inputs.items():
        _check_shape(f"input {name!r}", shape)
        types[_fresh(name, types)] = ValueType("f32", shape)
    if not types:
        raise FormatError("a graph needs an input")
    names: set[str] = set()
    used: set[str] = set()
    for node in graph.nodes:
        _fresh(node.name, names)
        names.add(node.name)
        types[_fresh(node.output, types)] = _infer(node, types, graph.constants, with_zeros)
        _check_shape(f"node {node.name!r}", types[node.output].shape)
        used.update(node.constants.values())
    if missing := [name for name in graph.outputs if name not in types] or not graph.outputs:
        raise FormatError(f"outputs must name values of the graph; {missing if graph.outputs else 'there are none'}")
    if unused := set(graph.constants) - used:
        raise FormatError(f"constants {sorted(unused)[:3]} are not used by any node")
    return replace(graph, types=types)


def _infer(node: Node, types: Mapping[str, ValueType], constants: Mapping[str, Constant], with_zeros: frozenset[str]) -> ValueType:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise FormatError(f"node {node.name!r}: unknown operator {node.op!r}; this version has {', '.join(sorted(OPERATORS))}")
    if missing := [name for name in (*node.inputs, *node.constants.values()) if name not in types and name not in constants]:
        raise FormatError(f"node {node.name!r} ({node.op}) uses {missing[0]!r}, which nothing before it makes")
    for names, table in ((node.inputs, types), (node.constants.values(), constants)):
        if wrong := [name for name in names if name not in table]:
            raise FormatError(f"node {node.name!r} ({node.op}) confuses values and constants at {wrong[0]!r}")
    by_role = {role: constants[name] for role, name in node.constants.items()}
    call = Call(node, tuple(types[name] for name in node.inputs), by_role, with_zeros)
    if len(call.inputs) != operator.arity:
        raise call.fail(f"it takes {operator.arity} inputs, not {len(call.inputs)}")
    if unknown := set(node.attrs) - set(operator.attrs):
        raise call.fail(f"unknown attributes {sorted(unknown)}; it has {', '.join(operator.attrs) or 'none'}")
    if node.op != "chain" and (unknown := set(node.constants) - {*operator.required, *operator.optional}):
        raise call.fail(f"unknown constants {sorted(unknown)}; it has {', '.join((*operator.required, *operator.optional)) or 'none'}")
    return operator.infer(call)


def _fresh(name: str, taken: Any) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME:
        raise FormatError(f"names are printable and have 1 to {MAX_NAME} bytes in UTF-8; got {str(name)[:40]!r}")
    if name in taken:
        raise FormatError(f"the name {name!r} stands twice")
    return name


def _check_shape(what: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 3) or any(type(n) is not int or n < 1 for n in shape) or math.prod(shape) > MAX_VALUES:
        raise FormatError(f"{what} has shape {shape}; lobit runs (C,) and (C, H, W) of at most 2^28 values")
    if any(n > MAX_EXTENT for n in shape[1:]):
        raise FormatError(f"{what} has shape {shape}; the limit of height and width is {MAX_EXTENT}")
