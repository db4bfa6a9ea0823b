"""A test of a second's hundredth that the kernels compute what they should: small products on every instruction set, beside numpy."""

from __future__ import annotations

import numpy as np

from lobit.bits import CodeType
from lobit.errors import LobitError
from lobit.format import Constant, Graph, Node, check_graph
from lobit.runtime import Session, isas

PRODUCTS = (("odd1", "odd1"), ("unsigned2", "odd1"), ("unsigned1", "signed2"), ("signed4", "signed4"), ("unsigned8", "signed8"))
"""Code types of activations and weights: XNOR, AND, bit planes and bytes."""
INPUTS, OUTPUTS, SAMPLES = 300, 70, 7


def wrong_isas() -> dict[str, str]:
    """Instruction sets whose sums differ from numpy's, and where; empty when all is well."""
    rng = np.random.default_rng(0)
    wrong: dict[str, str] = {}
    for x_text, w_text in PRODUCTS:
        x_code, w_code = CodeType.parse(x_text), CodeType.parse(w_text)
        x = rng.choice(np.asarray(x_code.levels), (SAMPLES, INPUTS))
        weight = rng.choice(np.asarray(w_code.levels), (OUTPUTS, INPUTS))
        graph = _product(x_code, w_code, weight)
        for isa in isas():
            try:
                equal = np.array_equal(Session(graph, isa=isa)(x.astype(np.float32)), x @ weight.T)
            except LobitError as error:
                wrong.setdefault(isa, str(error))
            else:
                if not equal:
                    wrong.setdefault(isa, f"wrong sums of {w_text} weights and {x_text} activations")
    return wrong


def _product(x: CodeType, w: CodeType, weight: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Graph:
    nodes = [
        Node("chain", "codes", ("x",), "codes", {"steps": [], "code": str(x), "zero": 0}),
        Node("linear", "sums", ("codes",), "sums", {}, {"weight": "weight"}),
    ]
    return check_graph(Graph({"x": (INPUTS,)}, nodes, ("sums",), {"weight": Constant.from_codes(weight, w)}))
