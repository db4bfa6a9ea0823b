"""An estimate of the energy that a network takes for one sample, from its cost alone. Free of torch.

It is an estimate, to compare networks with, and no measurement: `lobit.report.rapl` measures where the machine does. Its figures are those of a 45 nm
process at 0.9 V (M. Horowitz, "Computing's energy problem", ISSCC 2014, as arXiv 1609.07061 quotes them), in picojoules:

| | multiply | add | | 64-bit access to memory of | up to 8 KB | 32 KB | 1 MB | DRAM |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| int8 | 0.2 | 0.03 | | | 10 | 20 | 100 | 1300 to 2600 |
| int32 | 3.1 | 0.1 | | | | | | |
| fp32 | 3.7 | 0.9 | | | | | | |

That table ends at 8 bits. Below, and for the rest, lobit takes:

- multiply: ``b_w * b_a / 64`` of the int8 multiply; fp32's in float layers;
- add: at the width of the accumulator, int32's add scaled by ``bits / 32``; fp32's in float layers. The width is the narrowest that holds every sum;
- memory: each layer with weights reads every 64-bit word of its weights and of its input once, at the level that the size of these weights, or of this
  input, falls in; DRAM counts as the middle of its range.

What stands between the products (thresholds, batch norm, pooling, additions) counts as free, and so does idle time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lobit.report.cost import LayerCost, NetworkCost
from lobit.report.memory import FLOAT_BITS

INT8_MULTIPLY, INT32_ADD = 0.2, 0.1
FLOAT_MULTIPLY, FLOAT_ADD = 3.7, 0.9
LEVELS = ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0))
"""Bytes that a memory holds, and picojoules of one access."""
DRAM = (1300.0, 2600.0)
"""Least and most picojoules of one access."""
WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """The picojoules of one layer's multiplications, additions and memory accesses, and how many of these go to DRAM."""

    name: str
    multiply_pj: float
    add_pj: float
    memory_pj: float
    dram_accesses: int

    @property
    def picojoules(self) -> float:
        """All three."""
        return self.multiply_pj + self.add_pj + self.memory_pj


@dataclass(frozen=True, slots=True)
class Energy:
    """The estimate for one sample: the layers that have weights, and their sums."""

    layers: tuple[LayerEnergy, ...]

    @property
    def multiply_pj(self) -> float:
        """Picojoules of the multiplications."""
        return sum(layer.multiply_pj for layer in self.layers)

    @property
    def add_pj(self) -> float:
        """Picojoules of the additions."""
        return sum(layer.add_pj for layer in self.layers)

    @property
    def memory_pj(self) -> float:
        """Picojoules of the memory accesses."""
        return sum(layer.memory_pj for layer in self.layers)

    @property
    def picojoules(self) -> float:
        """All three."""
        return self.multiply_pj + self.add_pj + self.memory_pj

    @property
    def joules(self) -> float:
        """All three, in joules."""
        return self.picojoules * 1e-12

    @property
    def joules_range(self) -> tuple[float, float]:
        """``joules`` with DRAM at the least and at the most of its range."""
        accesses = sum(layer.dram_accesses for layer in self.layers)
        return tuple((self.picojoules + accesses * (end - _MIDDLE)) * 1e-12 for end in DRAM)  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        names = ("joules", "joules_range", "multiply_pj", "add_pj", "memory_pj")
        return {**{name: getattr(self, name) for name in names}, "layers": [asdict(layer) for layer in self.layers]}


_MIDDLE = sum(DRAM) / 2


def estimate(cost: NetworkCost) -> Energy:
    """Estimate the energy of one sample, as the head of this module says.

    Examples
    --------
    >>> from lobit.format import read_file
    >>> from lobit.report.cost import cost_of
    >>> cost = cost_of(read_file("tests/golden/v1-mlp.lobit"))
    >>> estimate(cost).joules < estimate(cost.as_float()).joules
    True
    """
    return Energy(tuple(_layer(layer) for layer in cost.layers if layer.bits))


def access_pj(size: int) -> float:
    """Picojoules of one 64-bit access to the smallest memory that holds ``size`` bytes."""
    return next((picojoules for room, picojoules in LEVELS if size <= room), _MIDDLE)


def _layer(layer: LayerCost) -> LayerEnergy:
    input_bytes = -(-layer.inputs * layer.activation_bits // 8)
    memory, dram = 0.0, 0
    for size in (layer.weight_bytes, input_bytes):
        words = -(-size // WORD_BYTES)
        memory += words * access_pj(size)
        dram += words if size > LEVELS[-1][0] else 0
    if layer.weight_bits == FLOAT_BITS:
        multiply, add = FLOAT_MULTIPLY, FLOAT_ADD
    else:
        multiply = INT8_MULTIPLY * layer.weight_bits * layer.activation_bits / 64
        add = INT32_ADD * layer.accumulator_bits / 32
    return LayerEnergy(layer.name, layer.macs * multiply, layer.macs * add, memory, dram)
