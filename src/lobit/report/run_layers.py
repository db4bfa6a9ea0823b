"""The table of layers: what each layer with weights is, the kernel that runs it, and its time. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.report.cost import PRODUCTS, NetworkCost
from lobit.runtime import OperatorRow, ProfileRow, Session


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer with weights.

    Parameters
    ----------
    name, op, bits : str
    codes : str
        Its weights, input and what it makes: ``"odd1 x unsigned2 -> odd1"``.
    kernel : str
    parameters, weight_bytes, float_bytes, macs : int
        As `lobit.report.cost.LayerCost` counts them.
    seconds, share : float
        Time of the product and of what is fused into it, for a batch, and its share of all operators' time.
    """

    name: str
    op: str
    bits: str
    codes: str
    kernel: str
    parameters: int
    weight_bytes: int
    float_bytes: int
    macs: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Times:
    """The operators of a session as they run, the fastest of several runs of each."""

    batch: int
    rows: tuple[tuple[OperatorRow, ProfileRow], ...]

    @property
    def seconds(self) -> float:
        """Of all operators."""
        return sum(time.seconds for _, time in self.rows)

    @property
    def between(self) -> float:
        """Seconds of the operators between the layers: pooling, packing of codes, padding and other copies."""
        return sum(time.seconds for operator, time in self.rows if not _is_product(operator))


def measure_layers(session: Session, cost: NetworkCost, x: NDArray[np.float32]) -> tuple[tuple[LayerRow, ...], Times]:
    """Time a session on ``x``, a batch of its only input, and tell its layers apart."""
    times = Times(len(x), tuple(zip(session.explain().rows, session.profile(x).rows, strict=True)))
    products = {operator.name.split(" + ")[0]: (operator, time) for operator, time in times.rows if _is_product(operator)}
    rows = []
    for layer in cost.layers:
        if layer.op in PRODUCTS:
            operator, time = products[layer.name]
            counts = (layer.parameters, layer.weight_bytes, layer.float_bytes, layer.macs)
            rows.append(LayerRow(layer.name, layer.op, layer.bits, operator.types, operator.kernel, *counts, time.seconds, time.share))
    return tuple(rows), times


def _is_product(operator: OperatorRow) -> bool:
    return operator.op.split(" + ")[0] in PRODUCTS
