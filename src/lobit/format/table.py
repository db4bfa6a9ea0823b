"""The table of a graph's operators: what an entry says, what a type rule is given, and the limits that every graph keeps.

`lobit.format.operators` fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lobit.errors import FormatError
from lobit.format.graph import Constant, Node, ValueType

MAX_NODES = 20_000
MAX_CONSTANTS = 50_000
MAX_NAME = 512
MAX_STEPS = 1024
MAX_SUM = 2**31 - 1
MAX_VALUES = 2**28
MAX_INPUTS = 64
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
    """An operator: its fewest and most inputs, which attributes and constants it takes, whether it is exact, and its type rule."""

    name: str
    arity: tuple[int, int]
    attrs: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    exact: bool
    infer: Callable[[Call], ValueType]


OPERATORS: dict[str, Operator] = {}


def operator(
    name: str,
    arity: int | tuple[int, int],
    attrs: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    *,
    exact: bool = True,
) -> Callable[[Callable[[Call], ValueType]], Callable[[Call], ValueType]]:
    """Enter a type rule into the table; the arguments are those of `Operator`."""

    def enter(infer: Callable[[Call], ValueType]) -> Callable[[Call], ValueType]:
        OPERATORS[name] = Operator(name, (arity, arity) if isinstance(arity, int) else arity, attrs, required, optional, exact, infer)
        return infer

    return enter


def kind_of(constant: Constant) -> str:
    """``codes``, ``f32`` or ``i32``."""
    return "codes" if constant.code is not None else {"f": "f32", "i": "i32"}[constant.data.dtype.kind]
