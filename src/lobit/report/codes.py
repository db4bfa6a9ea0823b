"""How a network uses its codes: the share of every level, of its weights and of the activations that its layers read. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobit.bits import CodeType
from lobit.errors import ConfigError, ShapeError
from lobit.format import Graph, check_graph
from lobit.runtime import Session

PRODUCTS = ("linear", "conv2d")
BATCH = 256


@dataclass(frozen=True, slots=True)
class CodeHistogram:
    """How often each level of an alphabet is used.

    Parameters
    ----------
    layer : str
        The layer whose weights they are, or that reads them.
    code : CodeType
    zero : int
        The code of real 0.
    counts : int64 ndarray of shape (levels,)
        Of ``code.levels``, in rising order; levels that nothing uses count 0.
    """

    layer: str
    code: CodeType
    zero: int
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Codes in all."""
        return int(self.counts.sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each level; zeros where there are no codes."""
        return self.counts / max(self.total, 1)

    @property
    def zeros(self) -> float | None:
        """Share of the codes that stand for real 0; None where the alphabet has no such code."""
        levels = self.code.levels
        return float(self.shares[levels.index(self.zero)]) if self.zero in levels else None

    @property
    def at_ends(self) -> float:
        """Share of the codes at the lowest or the highest level, unless that is real 0 (which a ReLU makes, not clipping).

        Much of it, with more than one bit, says that values beyond the range are cut off.
        """
        ends = {self.code.levels[0], self.code.levels[-1]} - {self.zero}
        return float(sum(self.shares[self.code.levels.index(end)] for end in ends))

    @property
    def used(self) -> int:
        """Levels that occur."""
        return int(np.count_nonzero(self.counts))

    @property
    def entropy(self) -> float:
        """Bits of information in a code, ``- sum p log2 p`` over the levels: at most ``code.bits``; far below it, fewer bits would do.

        References
        ----------
        Shannon, A Mathematical Theory of Communication, 1948, section 6.
        """
        p = self.shares[self.counts > 0]
        return max(0.0, -float((p * np.log2(p)).sum()))  # no -0.0


def weight_codes(graph: Graph) -> tuple[CodeHistogram, ...]:
    """Histograms of the weights of every layer whose weights are codes, in the order they run; those that two layers share stand twice."""
    found = []
    for node in (node for node in graph.nodes if node.op in PRODUCTS):
        weight = graph.constants[node.constants["weight"]]
        assert weight.code is not None
        found.append(CodeHistogram(node.name, weight.code, 0, _count(weight.codes(), weight.code)))
    return tuple(found)


def activation_codes(
    session: Session, inputs: NDArray[np.float32] | Sequence[NDArray[np.float32]], batch_size: int = BATCH
) -> tuple[CodeHistogram, ...]:
    """Histograms of the codes that every quantized layer reads, over a sample, in the order the layers run.

    Parameters
    ----------
    session : Session
    inputs : float32 ndarray of shape (N, C), (N, C, L) or (N, C, H, W), or one for each input of the network
        N of 0 gives histograms of nothing.
    batch_size : int
        How many samples run at once: codes of all layers are held for that many.

    Raises
    ------
    ConfigError
        For a batch size below 1.
    ShapeError
        As for a call of the session.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size!r}; it must be an integer of at least 1")
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len({len(array) for array in arrays}) > 1:
        raise ShapeError(f"the inputs have batches of {[len(array) for array in arrays]}; give one batch of all of them")
    graph = session.graph if session.graph.types else check_graph(session.graph)
    readers = {node.name: node.inputs[0] for node in graph.nodes if node.op in PRODUCTS}
    kinds = {value: graph.types[value] for value in readers.values()}
    counts = {value: np.zeros(len(_code(kind.code).levels), np.int64) for value, kind in kinds.items()}
    for start in range(0, len(arrays[0]) or 1, batch_size):
        for value, codes in session.run_values([array[start : start + batch_size] for array in arrays], counts).items():
            counts[value] += _count(codes, _code(kinds[value].code))
    return tuple(CodeHistogram(name, _code(kinds[value].code), kinds[value].zero, counts[value]) for name, value in readers.items())


def _code(code: CodeType | None) -> CodeType:
    assert code is not None  # a product of codes reads codes: check_graph
    return code


def _count(codes: NDArray[np.int16], code: CodeType) -> NDArray[np.int64]:
    """How often each level occurs."""
    by_value = np.bincount(codes.ravel().astype(np.int64) - code.lo, minlength=code.hi - code.lo + 1)
    counts: NDArray[np.int64] = by_value[np.array(code.levels) - code.lo].astype(np.int64)
    return counts
