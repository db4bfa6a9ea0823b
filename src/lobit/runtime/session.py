"""Sessions: a packed network ready to run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ConfigError
from lobit.format import Graph, ValueType, check_graph, read_file
from lobit.runtime.hardware import choose_isa
from lobit.runtime.inputs import check_inputs
from lobit.runtime.plan import Carrier, make_plan
from lobit.runtime.report import Explanation, OperatorRow, Profile, ProfileRow

MAX_THREADS = 1024
DTYPES: dict[str, type[np.generic]] = {"f32": np.float32, "i32": np.int32, "codes": np.int16}


class Session:
    """A network in memory, its weights packed for the kernels of one instruction set.

    Calls release the GIL; one session may be called from several threads at once, and after a fork. Results do not depend on the number of
    threads, on the instruction set, on the carrier or on the batch.

    Parameters
    ----------
    graph : Graph
        The network; it is checked again unless its types are filled in.
    threads : int
        Threads of a call; can be changed at any time.
    isa : str, optional
        ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"amx"``; by default that of the environment variable ``LOBIT_ISA``, else the best of this CPU.
    prefer : {"planes", "bytes"}, optional
        How codes are held wherever there is a choice; by default the cheaper way.

    Raises
    ------
    ConfigError
        For settings that are not allowed.
    FormatError
        For a graph that is none.
    """

    def __init__(self, graph: Graph, *, threads: int = 1, isa: str | None = None, prefer: Carrier | None = None) -> None:
        self.graph = graph if graph.types else check_graph(graph)
        self.threads = threads
        self._isa = choose_isa(isa)
        self._plan = make_plan(self.graph, self._isa, prefer)
        self._outputs = [self.graph.types[name] for name in self.graph.outputs]

    @property
    def threads(self) -> int:
        """How many threads a call uses."""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if not isinstance(threads, (int, np.integer)) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
            raise ConfigError(f"threads is {threads!r}; it must be an integer from 1 to {MAX_THREADS}")
        self._threads = int(threads)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._isa

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the intermediate values that exist in memory; the others are fused away. For `run_values`."""
        return tuple(node.output for node in self.graph.nodes if self._plan.program.stored(self._plan.values[node.output]))

    def __call__(self, *inputs: NDArray[np.float32]) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Run the network.

        Parameters
        ----------
        *inputs : float32 ndarray of shape (N, C), (N, C, L) or (N, C, H, W)
            In the order of ``graph.inputs``; contiguous or not. N may be 0.

        Returns
        -------
        ndarray, or a tuple of them where the network has several outputs
            Of shape (N, ...): float32, int32 for sums, int16 for codes.

        Raises
        ------
        ShapeError
            For a wrong number of inputs, shape or dtype, or values that are not finite; before any work.
        ConfigError
            When memory or threads are not to be had for this batch.
        """
        outputs = self._run(inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run_values(self, inputs: NDArray[np.float32] | Sequence[NDArray[np.float32]], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Run the network and return intermediate values by name.

        Parameters
        ----------
        inputs : ndarray or sequence of ndarray
            As for a call.
        names : iterable of str
            Of `value_names`.

        Returns
        -------
        dict of str to ndarray
            In PyTorch's layout with the batch axis; codes as int16, sums as int32, floats as float32.

        Raises
        ------
        ConfigError
            For a name that the network does not have or that is fused away; the message lists those there are.
        """
        names = list(dict.fromkeys(names))
        known = self.value_names
        for name in names:
            if name not in known:
                why = "is fused into the operator that uses it" if name in self._plan.values else "does not exist"
                raise ConfigError(f"value {name!r} {why}; there are {', '.join(known)}")
        batch, arrays = check_inputs(self.graph.inputs, [inputs] if isinstance(inputs, np.ndarray) else inputs)
        values = {name: _empty(batch, self.graph.types[name]) for name in names}
        self._execute(batch, arrays, [(self._plan.values[name], array) for name, array in values.items()], None)
        return values

    def explain(self) -> Explanation:
        """What runs: code types, kernel and the reason for it, bytes and multiply-accumulates of each operator."""
        return Explanation(self._isa, self._threads, tuple(OperatorRow(**row) for row in self._plan.program.operators()))

    def profile(self, *inputs: NDArray[np.float32], repetitions: int = 5) -> Profile:
        """Time each operator: the fastest of several runs.

        Raises
        ------
        ConfigError
            For fewer than one repetition.
        """
        if type(repetitions) is not int or repetitions < 1:
            raise ConfigError(f"repetitions is {repetitions!r}; it must be an integer of at least 1")
        batch, arrays = check_inputs(self.graph.inputs, inputs)
        operators = self.explain().rows
        times = np.zeros((repetitions, len(operators)))
        for row in times:
            self._execute(batch, arrays, [], row)
        best = times.min(axis=0)
        total = float(best.sum())
        rows = (
            ProfileRow(
                operator.name,
                operator.op,
                operator.kernel,
                float(seconds),
                float(seconds) / total if total else 0.0,
                operator.macs * batch / float(seconds) / 1e9 if seconds else 0.0,
            )
            for operator, seconds in zip(operators, best, strict=True)
        )
        return Profile(batch, self._threads, tuple(rows))

    def _run(self, inputs: Sequence[Any]) -> list[NDArray[Any]]:
        batch, arrays = check_inputs(self.graph.inputs, inputs)
        return self._execute(batch, arrays, [], None)

    def _execute(
        self, batch: int, arrays: list[NDArray[np.float32]], taps: list[tuple[int, NDArray[Any]]], seconds: NDArray[np.float64] | None
    ) -> list[NDArray[Any]]:
        try:
            outputs = [_empty(batch, kind) for kind in self._outputs]
            self._plan.program.run(batch, self._threads, arrays, outputs, taps, seconds)
        except MemoryError:
            raise ConfigError(f"there is not enough memory for a batch of {batch}; use a smaller batch") from None
        except ValueError as error:
            raise ConfigError(f"the engine could not run with {self._threads} threads: {error}; use fewer threads") from None
        return outputs

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} (N, {', '.join(map(str, shape))})" for name, shape in self.graph.inputs.items())
        return f"<Session {inputs} -> {', '.join(self.graph.outputs)}; {self._isa}, {self._threads} thread(s)>"


def _empty(batch: int, kind: ValueType) -> NDArray[Any]:
    return np.empty((batch, *kind.shape), DTYPES[kind.kind])


def load(path: str | os.PathLike[str], *, threads: int = 1, isa: str | None = None) -> Session:
    """Read a packed network and make it ready to run.

    Parameters
    ----------
    path : path-like
        A ``.lobit`` file.
    threads, isa
        As in `Session`.

    Raises
    ------
    FormatError
        When the file is missing, damaged, foreign or newer than this version.
    ConfigError
        For settings that are not allowed.
    """
    return Session(read_file(path), threads=threads, isa=isa)
