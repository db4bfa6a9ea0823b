"""The tables of docs/kernels.md are those of the kernel table and of the committed log."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node, Step
from lobit.runtime import OperatorRow, Session, isas, kernels
from scripts.kernel_page import LOG, PAGE, break_even, tables, with_tables


def test_the_tables_are_current() -> None:
    if not any(kernel.isa == "amx" for kernel in kernels()):
        pytest.skip("this build has no AMX kernels; the page lists those of x86-64")
    assert PAGE.read_text() == with_tables(PAGE.read_text()), "run `python -m scripts.kernel_page` and commit docs/kernels.md"


def test_every_kernel_and_every_loop_is_listed() -> None:
    text = tables()
    for kernel in kernels():
        assert f"`{kernel.name}`" in text["products"] if kernel.rows else f"`{kernel.op}`" in text["loops"]


def test_the_measured_table_has_each_layer_of_the_log() -> None:
    rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    body = tables()["measured"].splitlines()
    assert sum(len(row["layers"]) for row in rows) == sum(line.startswith("| 1") for line in body)


def layer(isa: str, x_bits: int, w_bits: int) -> OperatorRow:
    """How a session runs a wide layer of these widths."""
    weight = Constant.from_codes(np.resize(CodeType("odd", w_bits).levels, (64, 4096)), CodeType("odd", w_bits))
    quantize = {"steps": [Step("round")], "code": f"unsigned{x_bits}", "zero": 0}
    nodes = [Node("chain", "q", ("x",), "c", quantize), Node("linear", "fc", ("c",), "s", {}, {"weight": "w"})]
    rows = Session(Graph({"x": (4096,)}, nodes, ("s",), {"w": weight}), isa=isa).explain().rows
    return next(row for row in rows if row.op.startswith("linear"))


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "amx"])
def test_sessions_choose_planes_up_to_the_break_even_of_the_page_and_hold_weights_as_it_says(isa: str) -> None:
    if isa not in isas():
        pytest.skip(f"this CPU lacks {isa}")
    limit = break_even("avx512" if isa == "amx" else isa)
    for x_bits in range(1, 5):
        for w_bits in range(1, 5):
            row, planes = layer(isa, x_bits, w_bits), x_bits * w_bits <= limit
            assert row.carrier == ("planes" if planes else "bytes"), (x_bits, w_bits)
            byte = 16 if isa == "avx2" else 8
            assert row.weight_bytes * 8 == 64 * 4096 * (w_bits if planes else byte), (x_bits, w_bits)
