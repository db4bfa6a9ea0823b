"""What a network costs, counted from its graph: parameters, bytes, multiply-accumulates, bit operations and memory. Free of torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from lobit.bits import Bits
from lobit.errors import ConfigError
from lobit.format import OPERATORS, Constant, Graph, Node, accumulator_bound, check_graph
from lobit.report.memory import FLOAT_BITS, peak_activation_bytes, value_bits

PRODUCTS = ("linear", "conv2d", "linear_f32", "conv2d_f32")
OTHER_SIDE = ".negative"  # what the name of a layer's second product ends in, as `lobit.capture` names it
MAX_BATCH = 2**20
_SUMS = (
    *("parameters", "weight_bytes", "float_bytes", "constant_bytes", "macs", "macs_by_width", "bit_operations", "bit_operations_by_width"),
    *("batch", "peak_activation_bytes", "peak_memory_bytes"),
)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one node of the graph costs for one sample.

    Parameters
    ----------
    name, op : str
        Of the node.
    bits : str
        ``"W1A2"``: the widths of the codes that a product multiplies, ``"W32A32"`` in float; ``""`` for a node without weights.
    macs : int
        Multiply-accumulates: ``outputs * weights of one output``. Taps that fall on zero padding count, as is usual in the field.
    bit_operations : int
        ``macs * bits of a weight * bits of an activation``.
    parameters : int
        Weights.
    weight_bytes, float_bytes : int
        The weights as packed in the file, and as float32.
    constant_bytes : int
        The other constants: thresholds, scales, biases.
    inputs : int
        Numbers that a product reads; 0 for other nodes.
    accumulator_bits : int
        Width of the narrowest two's complement integer that holds every sum of a product; 32 in float; 0 for other nodes.
    exact : bool
        Whether the operator belongs to the exact class.
    """

    name: str
    op: str
    bits: str
    macs: int
    bit_operations: int
    parameters: int
    weight_bytes: int
    float_bytes: int
    constant_bytes: int
    inputs: int
    accumulator_bits: int
    exact: bool

    @property
    def weight_bits(self) -> int:
        """Bits of a weight; 32 for a node without weights, which has none to count."""
        return Bits.parse(self.bits).weights if self.bits else FLOAT_BITS

    @property
    def activation_bits(self) -> int:
        """Bits of an activation that is read; 32 for a node without weights."""
        return Bits.parse(self.bits).activations if self.bits else FLOAT_BITS

    def as_float(self) -> LayerCost:
        """The same layer in float32."""
        if not self.bits:
            return self
        return replace(
            self,
            bits=str(Bits()),
            bit_operations=self.macs * FLOAT_BITS**2,
            weight_bytes=self.float_bytes,
            accumulator_bits=FLOAT_BITS,
            exact=False,
        )


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """What a network costs: its layers in order and their sums.

    Counts are those of one sample; memory is that of ``batch`` samples at once.

    Parameters
    ----------
    layers : tuple of LayerCost
        One for each node, in the order they run.
    batch : int
        Samples that memory is counted for.
    peak_activation_bytes : int
        The largest sum of the values that exist at once (`lobit.report.memory.live_bytes`): codes packed at their width, sums and floats at 4 bytes.
    float_peak_activation_bytes : int
        The same with every value as float32.
    """

    layers: tuple[LayerCost, ...]
    batch: int
    peak_activation_bytes: int
    float_peak_activation_bytes: int

    @property
    def parameters(self) -> int:
        """Weights of the linear and convolutional layers. What is learned beside them (biases, batch norm, steps) has become `constant_bytes`."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """The weights as packed in the file."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """The weights as float32."""
        return sum(layer.float_bytes for layer in self.layers)

    @property
    def constant_bytes(self) -> int:
        """Constants that are no weights: thresholds, scales, biases."""
        return sum(layer.constant_bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def macs_by_width(self) -> dict[str, int]:
        """Multiply-accumulates of one sample by the widths that they multiply: ``{"W1A8": n, "W1A1": m}``, widest first."""
        return self._by_width("macs")

    @property
    def bit_operations(self) -> int:
        """``macs * bits of a weight * bits of an activation``, of one sample."""
        return sum(layer.bit_operations for layer in self.layers)

    @property
    def bit_operations_by_width(self) -> dict[str, int]:
        """Bit operations of one sample by width."""
        return self._by_width("bit_operations")

    @property
    def peak_memory_bytes(self) -> int:
        """Weights, other constants, and the most that values take at once."""
        return self.weight_bytes + self.constant_bytes + self.peak_activation_bytes

    def as_float(self) -> NetworkCost:
        """The same network with every weight and value as float32."""
        layers = tuple(layer.as_float() for layer in self.layers)
        return NetworkCost(layers, self.batch, self.float_peak_activation_bytes, self.float_peak_activation_bytes)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, sums first."""
        return {**{name: getattr(self, name) for name in _SUMS}, "layers": [asdict(layer) for layer in self.layers]}

    def _by_width(self, field: str) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for layer in self.layers:
            if layer.bits:
                sums[layer.bits] += getattr(layer, field)
        return dict(sorted(sums.items(), key=lambda item: -math.prod(_widths(item[0]))))


def cost_of(graph: Graph, batch: int = 1) -> NetworkCost:
    """Count what a graph costs.

    A constant that several nodes share counts once, where it is first used. Ternary weights with a scale for each side of 0 are two products in the graph, and one
    layer of 2 bits here.

    Parameters
    ----------
    graph : Graph
        As read from a file or captured from a model; it is checked first unless its types are filled in.
    batch : int
        Samples that run at once, 1 to 2^20; for the memory.

    Raises
    ------
    ConfigError
        For another batch.
    FormatError
        For a graph that is none.
    """
    check_batch(batch)
    graph = graph if graph.types else check_graph(graph)
    seen: set[str] = set()
    layers: dict[str, LayerCost] = {}
    sides = _other_sides(graph)
    for node in graph.nodes:
        fresh = {role: graph.constants[name] for role, name in node.constants.items() if name not in seen}
        seen.update(node.constants.values())
        layers[node.name] = _layer(graph, node, fresh)
        if first := sides.get(node.name):
            layers[first], layers[node.name] = _one_layer(layers[first], layers[node.name])
    return NetworkCost(
        tuple(layers.values()), batch, peak_activation_bytes(graph, batch), peak_activation_bytes(graph, batch, as_float=True)
    )


def check_batch(batch: int) -> None:
    """Refuse a batch that is none (`ConfigError`)."""
    if type(batch) is not int or not 1 <= batch <= MAX_BATCH:
        raise ConfigError(f"batch is {batch!r}; it must be an integer from 1 to {MAX_BATCH}")


def _layer(graph: Graph, node: Node, fresh: dict[str, Constant]) -> LayerCost:
    product = node.op in PRODUCTS
    weight = fresh.get("weight") if product else None
    parameters = math.prod(weight.shape) if weight is not None else 0
    bits, macs, inputs, accumulator = _product(graph, node) if product else ("", 0, 0, 0)
    return LayerCost(
        node.name,
        node.op,
        bits,
        macs,
        macs * math.prod(_widths(bits)) if bits else 0,
        parameters,
        weight.nbytes if weight is not None else 0,
        4 * parameters,
        sum(constant.nbytes for constant in fresh.values() if constant is not weight),
        inputs,
        accumulator,
        OPERATORS[node.op].exact,
    )


def _other_sides(graph: Graph) -> dict[str, str]:
    """Products of the weights -1 of a layer whose weights +1 have a product and a scale of their own: their name, and that of the other."""
    products = {node.name: node for node in graph.nodes if node.op in PRODUCTS}
    pairs = ((name, name.removesuffix(OTHER_SIDE)) for name in products if name.endswith(OTHER_SIDE))
    return {
        name: first
        for name, first in pairs
        if first in products and products[first].op == products[name].op and products[first].inputs == products[name].inputs
    }


def _one_layer(first: LayerCost, other: LayerCost) -> tuple[LayerCost, LayerCost]:
    """Two products of one-bit weights as the layer of ternary weights that they are, and a node that adds nothing to it."""
    bits = Bits(2, first.activation_bits)
    one = replace(
        first,
        bits=str(bits),
        bit_operations=first.macs * bits.weights * bits.activations,
        weight_bytes=first.weight_bytes + other.weight_bytes,
        constant_bytes=first.constant_bytes + other.constant_bytes,
    )
    return one, replace(
        other,
        bits="",
        macs=0,
        bit_operations=0,
        parameters=0,
        weight_bytes=0,
        float_bytes=0,
        constant_bytes=0,
        inputs=0,
        accumulator_bits=0,
    )


def _product(graph: Graph, node: Node) -> tuple[str, int, int, int]:
    """Widths, multiply-accumulates, numbers read, and bits of the accumulator."""
    x, weight = graph.types[node.inputs[0]], graph.constants[node.constants["weight"]]
    for_one_output = math.prod(weight.shape[1:])
    macs = math.prod(graph.types[node.output].shape) * for_one_output
    if weight.code is None:
        return str(Bits()), macs, math.prod(x.shape), FLOAT_BITS
    accumulator = accumulator_bound(for_one_output, x, weight.code).bit_length() + 1
    return str(Bits(weight.code.bits, value_bits(x))), macs, math.prod(x.shape), accumulator


def _widths(bits: str) -> tuple[int, int]:
    widths = Bits.parse(bits)
    return widths.weights, widths.activations
