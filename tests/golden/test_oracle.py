"""The oracle itself, against PyTorch in float64, where every number here is exact."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from lobit.bits import CodeType
from lobit.format import Constant, Graph, Node, check_graph
from tests.golden import oracle


def test_convolution_equals_torch_with_groups_dilation_and_uneven_padding() -> None:
    rng = np.random.default_rng(0)
    weight = rng.choice([-3, -1, 1, 3], (6, 2, 2, 3))
    attrs = {"stride": [2, 1], "padding": [1, 0, 2, 3], "dilation": [1, 2], "groups": 2}
    nodes = [
        Node("chain", "sign", ("x",), "c", {"steps": [], "code": "odd1", "zero": 0}),
        Node("conv2d", "conv", ("c",), "s", attrs, {"weight": "w"}),
    ]
    graph = check_graph(Graph({"x": (4, 7, 8)}, nodes, ("s",), {"w": Constant.from_codes(weight, CodeType("odd", 2))}))
    x = rng.normal(size=(3, 4, 7, 8)).astype(np.float32)
    signs = torch.from_numpy(np.where(x >= 0, 1.0, -1.0))
    padded = functional.pad(signs, (0, 3, 1, 2))
    expected = functional.conv2d(padded, torch.from_numpy(weight).double(), stride=(2, 1), dilation=(1, 2), groups=2)
    np.testing.assert_array_equal(oracle.run(graph, x), expected.numpy())


def test_max_pooling_equals_torch() -> None:
    attrs = {"kernel": [3, 2], "stride": [2, 1], "padding": [1, 1, 1, 1], "dilation": [1, 2]}
    graph = check_graph(Graph({"x": (2, 7, 6)}, [Node("max_pool2d", "pool", ("x",), "y", attrs)], ("y",), {}))
    x = np.random.default_rng(1).normal(size=(2, 2, 7, 6)).astype(np.float32) - 5
    expected = functional.max_pool2d(torch.from_numpy(x), (3, 2), (2, 1), 1, (1, 2))
    np.testing.assert_array_equal(oracle.run(graph, x), expected.numpy())


def test_average_pooling_equals_torch_on_integers() -> None:
    attrs = {"kernel": [2, 2], "stride": [2, 2], "padding": [1, 1, 1, 1], "divisor": 4}
    graph = check_graph(Graph({"x": (2, 6, 4)}, [Node("avg_pool2d", "pool", ("x",), "y", attrs)], ("y",), {}))
    x = np.random.default_rng(2).integers(-99, 99, (2, 2, 6, 4)).astype(np.float32)
    expected = functional.avg_pool2d(torch.from_numpy(x), 2, 2, 1)
    np.testing.assert_array_equal(oracle.run(graph, x), expected.numpy())
