"""Small files that would cost much: refused, or cheap."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.errors import ConfigError, FormatError
from lobit.format import Constant, Graph, Node, Step, check_graph, read_file, write_file
from lobit.format.geometry import Window
from lobit.runtime import Session
from tests.format.samples import codes, floats, mlp

RNG = np.random.default_rng(0)
QUANTIZE = Node("chain", "q", ("x",), "c", {"steps": [], "code": "odd1", "zero": 0})


def test_many_layers_of_one_weight_meet_the_memory_limit() -> None:
    weight = {"w": codes(RNG, (4096, 4096), "odd1")}
    nodes = [QUANTIZE, *(Node("linear", f"l{i}", ("c",), f"y{i}", {}, {"weight": "w"}) for i in range(100))]
    graph = check_graph(Graph({"x": (4096,)}, nodes, ("y0",), weight))
    with pytest.raises(ConfigError, match="bytes of memory"):
        Session(graph)


def test_a_huge_border_is_refused() -> None:
    conv = Node("conv2d", "v", ("c",), "y", {"stride": [1, 1], "padding": [1499] * 4, "dilation": [1, 1], "groups": 1}, {"weight": "w"})
    graph = check_graph(Graph({"x": (1, 1500, 1500)}, [QUANTIZE, conv], ("y",), {"w": codes(RNG, (1, 1, 1500, 1500), "odd1")}))
    with pytest.raises(ConfigError, match="bytes of memory"):
        Session(graph)


def test_a_chain_has_a_limit_of_steps() -> None:
    with pytest.raises(FormatError, match="limit is 1024"):
        check_graph(Graph({"x": (4,)}, [Node("chain", "q", ("x",), "y", {"steps": [Step("round")] * 1025})], ("y",), {}))


def test_pools_of_wide_images_are_checked_at_once() -> None:
    attrs = {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1]}
    nodes = [Node("max_pool2d", f"p{i}", ("x" if not i else f"y{i - 1}",), f"y{i}", attrs) for i in range(200)]
    start = time.process_time()
    check_graph(Graph({"x": (1, 65535, 1)}, nodes, ("y199",), {}))
    assert time.process_time() - start < 1


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 6), st.integers(0, 6), st.integers(1, 6))
def test_windows_meet_the_image_as_a_loop_over_all_says(size: int, kernel: int, stride: int, low: int, high: int, dilation: int) -> None:
    if size + low + high < dilation * (kernel - 1) + 1:
        return
    window = Window((kernel, 1), (stride, 1), (low, 0, high, 0), (dilation, 1))
    starts = [out * stride - low for out in range(window.output_size((size, 1))[0])]
    assert window.always_meets((size, 1)) == all(any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)


def test_names_are_limited_in_bytes() -> None:
    graph = mlp()
    for name, fine in (("n" * 512, True), ("\u00e9" * 257, False), ("\U0001f600" * 128, True)):
        renamed = Graph(
            graph.inputs,
            [Node(n.op, name if n.name == "fc1" else n.name, n.inputs, n.output, n.attrs, n.constants) for n in graph.nodes],
            graph.outputs,
            graph.constants,
        )
        if fine:
            assert name in str(Session(check_graph(renamed)).explain())
        else:
            with pytest.raises(FormatError, match="512 bytes"):
                check_graph(renamed)


def test_a_constant_that_is_not_finite_is_named() -> None:
    add = Node("chain", "q", ("x",), "y", {"steps": [Step("add", "c")]}, {"c": "k"})
    with pytest.raises(FormatError, match="'k' is not finite"):
        check_graph(Graph({"x": (2,)}, [add], ("y",), {"k": floats([np.nan])}))
    divide = Node("chain", "q", ("x",), "y", {"steps": [Step("div", "c")]}, {"c": "k"})
    with pytest.raises(FormatError, match="divides by zero"):
        check_graph(Graph({"x": (2,)}, [divide], ("y",), {"k": Constant.from_array(np.zeros(1, np.float32))}))


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="regular file"):
        read_file(tmp_path / "pipe")


def test_a_file_with_a_long_hole_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.lobit"
    write_file(path, mlp())
    os.truncate(path, 1 << 32)
    start = time.process_time()
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_file(path)
    assert time.process_time() - start < 1
