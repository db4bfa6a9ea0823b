"""Compares sessions of every kind with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from lobit.format import Graph
from lobit.runtime import Session, isas
from tests.runtime.reference import interpret

SETTINGS: list[dict[str, Any]] = [
    {"isa": isa, "prefer": prefer, "threads": threads} for isa in isas() for prefer, threads in ((None, 2), ("planes", 1), ("bytes", 2))
]


def assert_agrees(graph: Graph, *inputs: np.ndarray[Any, Any], settings: list[dict[str, Any]] | None = None) -> None:
    """Every output and every stored value of every session equals the reference, bit for bit."""
    with np.errstate(all="ignore"):
        expected = interpret(graph, dict(zip(graph.inputs, inputs, strict=True)))
    for setting in settings or SETTINGS:
        session = Session(graph, **setting)
        got = session(*inputs)
        outputs = got if isinstance(got, tuple) else (got,)
        for name, output in zip(graph.outputs, outputs, strict=True):
            assert output.shape == (len(inputs[0]), *graph.types[name].shape)
            assert np.array_equal(output, expected[name], equal_nan=True), (setting, name, str(session.explain()))
        for name, value in session.run_values(inputs, session.value_names).items():
            assert np.array_equal(value, expected[name], equal_nan=True), (setting, name, str(session.explain()))
