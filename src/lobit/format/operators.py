"""The operators of a graph: one table entry each, with its attributes, its constants and its type rule.

`lobit.format.check.check_graph` derives the type of every value from this table; a file's own claims are never trusted. What each operator computes
stands in docs/architecture.md, "The graph".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError
from lobit.format.geometry import MAX_EXTENT, Window, flatten_shape, image_size, window_of
from lobit.format.graph import Constant, Step, ValueType
from lobit.format.table import BINARY_STEPS, MAX_INPUTS, MAX_STEPS, MAX_SUM, MAX_VALUES, OPERATORS, UNARY_STEPS, Call, operator

FLOAT_MAX = float(np.finfo(np.float32).max)

__all__ = ["OPERATORS", "accumulator_bound"]


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


def _size(call: Call) -> tuple[int, int]:
    """Height and width of the input."""
    try:
        return image_size(call.inputs[0].shape)
    except ValueError as error:
        raise call.fail(str(error)) from None


def _image(call: Call, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of an image like the input, of other channels and another size."""
    if len(call.inputs[0].shape) == 3:
        return (channels, *size)
    if size[0] != 1:
        raise call.fail(
            f"its input {call.inputs[0].shape} is an image of one row, and of it the window makes {size[0]} rows; it must make one"
        )
    return (channels, size[1])


@operator("chain", 1, ("steps", "code", "zero"))
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
    if code.alphabet is Alphabet.ODD and code.bits > 1:
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
    size, channels = _size(call), x.shape[0]
    groups = call.node.attrs.get("groups")
    if type(groups) is not int or groups < 1 or channels % groups:
        raise call.fail(f"groups must divide the {channels} input channels, not {groups!r}")
    weight = _weight(call, (None, channels // groups, None, None), x)
    if weight.shape[0] % groups:
        raise call.fail(f"groups {groups} must divide the {weight.shape[0]} output channels")
    window = _window(call, kernel=list(weight.shape[2:]))
    return _image(call, weight.shape[0], window.output_size(size))


def _window(call: Call, **known: Any) -> Window:
    try:
        window = window_of({**call.node.attrs, **known})
        window.output_size(_size(call))
    except ValueError as error:
        raise call.fail(str(error)) from None
    padded = window.padded_size(_size(call))
    if call.inputs[0].shape[0] * math.prod(padded) > MAX_VALUES:
        raise call.fail(f"its padded image {padded} is beyond 2^28 values")
    return window


@operator("linear", 1, (), ("weight",))
def _linear(call: Call) -> ValueType:
    return ValueType("i32", _linear_shape(call, _codes_in(call)))


@operator("conv2d", 1, ("stride", "padding", "dilation", "groups"), ("weight",))
def _conv2d(call: Call) -> ValueType:
    return ValueType("i32", _conv_shape(call, _codes_in(call)))


@operator("linear_f32", 1, (), ("weight",), ("bias",), exact=False)
def _linear_f32(call: Call) -> ValueType:
    return ValueType("f32", _linear_shape(call, _kind_in(call, "f32")))


@operator("conv2d_f32", 1, ("stride", "padding", "dilation", "groups"), ("weight",), ("bias",), exact=False)
def _conv2d_f32(call: Call) -> ValueType:
    return ValueType("f32", _conv_shape(call, _kind_in(call, "f32")))


@operator("threshold", 1, ("code", "zero"), ("thresholds", "direction"))
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


@operator("max_pool2d", 1, ("kernel", "stride", "padding", "dilation"))
def _max_pool2d(call: Call) -> ValueType:
    x = call.inputs[0]
    size, window = _size(call), _window(call)
    if not window.always_meets(size):
        raise call.fail("some of its windows lie wholly in the padding; use less padding")
    return replace(x, shape=_image(call, x.shape[0], window.output_size(size)))


@operator("avg_pool2d", 1, ("kernel", "stride", "padding", "divisor"))
def _avg_pool2d(call: Call) -> ValueType:
    x = _kind_in(call, "f32")
    size = _size(call)
    divisor = call.node.attrs.get("divisor")
    if type(divisor) is not int or not 1 <= divisor <= 2**24:
        raise call.fail(f"divisor must be an integer from 1 to 2^24, not {divisor!r}")
    return replace(x, shape=_image(call, x.shape[0], _window(call, dilation=[1, 1]).output_size(size)))


@operator("add", 2)
def _add(call: Call) -> ValueType:
    a, b = call.inputs
    if a.kind != "f32" or a != b:
        raise call.fail(f"it adds two f32 values of one shape, not {a} and {b}")
    return a


@operator("concat", (2, MAX_INPUTS))
def _concat(call: Call) -> ValueType:
    first = _kind_in(call, "f32", "codes")
    for x in call.inputs[1:]:
        if replace(x, shape=(first.shape[0], *x.shape[1:])) != first:
            raise call.fail(f"it joins values of one type, alike but for their channels, not {first} and {x}")
    return replace(first, shape=(sum(x.shape[0] for x in call.inputs), *first.shape[1:]))


@operator("flatten", 1)
def _flatten(call: Call) -> ValueType:
    x = call.inputs[0]
    _size(call)
    return replace(x, shape=flatten_shape(x.shape))


@operator("resize2d", 1, (), ("rows", "columns"), ("row_weights", "column_weights"))
def _resize2d(call: Call) -> ValueType:
    mixes = "row_weights" in call.constants
    x = _kind_in(call, "f32") if mixes else _kind_in(call, "f32", "codes")
    if mixes != ("column_weights" in call.constants):
        raise call.fail("row_weights and column_weights go together; give both for a mix of neighbours, none for nearest pixels")
    size = _size(call)
    height, width = (_table(call, *names, mixes) for names in (("rows", "row_weights", size[0]), ("columns", "column_weights", size[1])))
    if x.shape[0] * height * width > MAX_VALUES:
        raise call.fail(f"its image {height, width} is beyond 2^28 values")
    return replace(x, shape=_image(call, x.shape[0], (height, width)))


def _table(call: Call, role: str, weights: str, size: int, mixes: bool) -> int:
    """How many rows, or columns, a table of `resize2d` makes of ``size``."""
    table = call.constant(role, "i32")
    if len(table.shape) != 1 or not 1 <= table.shape[0] < MAX_EXTENT or not ((table.data >= 0) & (table.data < size)).all():
        raise call.fail(f"{role} must be 1 to {MAX_EXTENT - 1} integers from 0 to {size - 1}; its shape is {table.shape}")
    if mixes:
        shares = call.constant(weights, "f32")
        if shares.shape != table.shape or not ((shares.data >= 0) & (shares.data <= 1)).all():
            raise call.fail(f"{weights} must be {table.shape[0]} floats from 0 to 1, one for each of {role}; its shape is {shares.shape}")
    return table.shape[0]


@operator("pad2d", 1, ("padding", "value"))
def _pad2d(call: Call) -> ValueType:
    x = _kind_in(call, "f32", "codes")
    window, value = _window(call, kernel=[1, 1], stride=[1, 1], dilation=[1, 1]), call.node.attrs.get("value")
    if x.code is not None:
        if type(value) is not int or value not in x.code.levels:
            raise call.fail(f"value must be a code of {x.code}, not {value!r}")
    elif not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= FLOAT_MAX:
        raise call.fail(f"value must be a finite float32, not {value!r}")
    return replace(x, shape=_image(call, x.shape[0], window.padded_size(_size(call))))
