"""Sessions: settings, errors before any work, values by name, explain and profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.errors import ConfigError, FormatError, ShapeError
from lobit.format import write_file
from lobit.runtime import Session, isas, kernels, load
from tests.format.samples import SAMPLES, mlp
from tests.runtime.nets import Net
from tests.runtime.reference import interpret
from tests.runtime.test_networks import convnet


def small() -> Net:
    net = Net(x=(5,))
    net.threshold(net.linear(net.codes("x", CodeType("unsigned", 2)), net.weight(CodeType("odd", 1), 4, 5)), CodeType("odd", 1), 3)
    return net


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros(5, np.float32), r"\(5,\).*\(N, 5\)"),
        (np.zeros((2, 6), np.float32), r"\(2, 6\).*\(N, 5\)"),
        (np.zeros((2, 5, 1), np.float32), r"\(2, 5, 1\)"),
        (np.zeros((2, 5)), "float64.*float32"),
        (np.zeros((2, 5), np.float16), "float16.*astype"),
        (np.zeros((2, 5), ">f4"), ">f4"),
        ([[0.0] * 5], "list.*numpy"),
        (np.full((2, 5), np.nan, np.float32), "10 values that are not finite"),
        (np.array([[0, 0, np.inf, 0, 0]], np.float32), "1 values that are not finite"),
    ],
)
def test_wrong_inputs_are_refused_by_name(array: Any, named: str) -> None:
    with pytest.raises(ShapeError, match="'x'.*" + named):
        Session(small().graph())(array)


def test_wrong_number_of_inputs_or_batches() -> None:
    net = Net(x=(3,), y=(3,))
    net.node("add", ("x", "y"))
    session = Session(net.graph())
    with pytest.raises(ShapeError, match="1 inputs.*2: x, y"):
        session(net.data(2))
    with pytest.raises(ShapeError, match=r"different batch sizes, \[2, 3\]"):
        session(net.data(2), net.data(3))


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, "2", None, 10**6])
def test_threads_must_be_a_count(threads: Any) -> None:
    session = Session(small().graph())
    with pytest.raises(ConfigError, match="threads is"):
        session.threads = threads
    with pytest.raises(ConfigError, match="threads is"):
        Session(small().graph(), threads=threads)
    assert session.threads == 1


@pytest.mark.parametrize("isa", ["sse9", "", "AVX2"])
def test_unknown_isa_names_what_there_is(isa: str) -> None:
    with pytest.raises(ConfigError, match=f"isa is '{isa}'.*{', '.join(isas())}"):
        Session(small().graph(), isa=isa)


def test_isa_defaults_to_the_variable_then_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOBIT_ISA", raising=False)
    assert Session(small().graph()).isa == isas()[-1]
    monkeypatch.setenv("LOBIT_ISA", "scalar")
    assert Session(small().graph()).isa == "scalar"
    assert Session(small().graph(), isa=isas()[-1]).isa == isas()[-1]
    monkeypatch.setenv("LOBIT_ISA", "neon")
    with pytest.raises(ConfigError, match="LOBIT_ISA is 'neon'"):
        Session(small().graph())


def test_unknown_carrier() -> None:
    with pytest.raises(ConfigError, match="prefer is 'words'"):
        Session(small().graph(), prefer="words")  # type: ignore[arg-type]


def test_forced_isa_uses_no_kernel_beyond_it() -> None:
    level = {kernel.name: isas().index(kernel.isa) for kernel in kernels() if kernel.runs}
    for index, isa in enumerate(isas()):
        used = [row.kernel for row in Session(convnet().graph(), isa=isa).explain().rows if row.macs]
        assert used
        assert all(level[name] <= index for name in used)


def test_empty_batch_gives_empty_results() -> None:
    net = convnet()
    assert Session(net.graph())(net.data(0)).shape == (0, 10)


def test_inputs_of_any_strides_give_the_same_result() -> None:
    net = convnet()
    session, x = Session(net.graph()), net.data(6)
    expected = session(x)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not last.flags.c_contiguous
    assert np.array_equal(session(last), expected)
    assert np.array_equal(session(np.asfortranarray(x)), expected)
    assert np.array_equal(session(x[::-2]), expected[::-2])
    x.flags.writeable = False
    assert np.array_equal(session(x), expected)


def test_outputs_have_the_dtype_of_their_kind() -> None:
    net = small()
    graph = net.graph("v1", "v2", "x")
    sums, codes, floats = Session(graph)(net.data(2))
    assert (sums.dtype, codes.dtype, floats.dtype) == (np.int32, np.int16, np.float32)


def test_values_by_name_and_those_fused_away() -> None:
    net = small()
    session, x = Session(net.graph()), net.data(3)
    assert session.value_names == ("v0", "v2")
    values = session.run_values(x, ["v2", "v0", "v2"])
    expected = interpret(session.graph, {"x": x})
    assert list(values) == ["v2", "v0"]
    assert values["v0"].dtype == np.int16
    assert all(np.array_equal(value, expected[name]) for name, value in values.items())
    with pytest.raises(ConfigError, match="'v1' is fused.*v0, v2"):
        session.run_values(x, ["v1"])
    with pytest.raises(ConfigError, match="'w' does not exist.*v0, v2"):
        session.run_values([x], ["w"])
    with pytest.raises(ShapeError, match="float64"):
        session.run_values(x.astype(np.float64), ["v0"])
    assert session.run_values(x, []) == {}


def test_explain_tells_what_runs() -> None:
    rows = Session(convnet().graph(), isa="scalar", prefer="planes").explain().rows
    fused = [row for row in rows if "+ threshold" in row.op]
    assert len(fused) == 3
    assert {row.carrier for row in fused} == {"bytes", "planes"}
    assert all(row.reason and row.weight_bytes and row.macs for row in fused)
    assert rows[-1].types == "odd1 x odd1 -> f32"
    assert not any(row.inexact for row in rows)
    text = str(Session(convnet().graph(), threads=2).explain())
    assert all(row.name in text and row.op in text for row in rows if row.macs)
    assert "2 thread(s)" in text


def test_grouped_layers_say_so() -> None:
    net = Net(x=(6, 4, 4))
    net.conv(net.codes("x", CodeType("odd", 1)), net.weight(CodeType("odd", 1), 6, 1, 3, 3), groups=6)
    rows = Session(net.graph()).explain().rows
    assert "6 groups" in next(row.reason for row in rows if row.macs)
    assert "regroup" in {row.op for row in rows}


def test_profile_times_every_operator() -> None:
    net = convnet()
    session = Session(net.graph())
    profile = session.profile(net.data(4), repetitions=2)
    assert [row.name for row in profile.rows] == [row.name for row in session.explain().rows]
    assert all(row.seconds >= 0 for row in profile.rows)
    assert sum(row.share for row in profile.rows) == pytest.approx(1)
    assert max(row.gmacs_per_second for row in profile.rows) > 0
    assert "ms for a batch of 4" in str(profile)
    with pytest.raises(ConfigError, match="repetitions is 0"):
        session.profile(net.data(1), repetitions=0)
    assert session.profile(net.data(0)).seconds == 0


def test_a_loaded_file_runs_like_its_graph(tmp_path: Path) -> None:
    net = convnet()
    graph, x = net.graph(), net.data(3)
    write_file(tmp_path / "net.lobit", graph)
    session = load(tmp_path / "net.lobit", threads=2, isa="scalar")
    assert (session.threads, session.isa) == (2, "scalar")
    assert np.array_equal(session(x), Session(graph)(x))
    with pytest.raises(FormatError, match="cannot read"):
        load(tmp_path / "none.lobit")


def test_a_batch_beyond_memory_is_an_error() -> None:
    net = Net(x=(1, 1, 1))
    large = net.conv("x", net.weight_f32(1, 1, 1, 1), padding=(8191, 8191, 8191, 8191))  # a gigabyte a sample
    net.pool("avg_pool2d", large, (1, 1), (16383, 16383), (0, 0, 0, 0))
    session = Session(net.graph())
    with pytest.raises(ConfigError, match="not enough memory for a batch of 200000"):
        session(np.zeros((200000, 1, 1, 1), np.float32))


def test_repr_names_inputs_and_outputs() -> None:
    assert repr(Session(small().graph(), isa="scalar")) == "<Session x (N, 5) -> v2; scalar, 1 thread(s)>"


def test_explain_names_rows_of_the_kernel_table() -> None:
    known = {kernel.name for kernel in kernels() if kernel.runs}
    for sample in SAMPLES.values():
        for isa in isas():
            assert {row.kernel for row in Session(sample(), isa=isa).explain().rows} <= known


def test_masked_arrays_are_refused_and_numpy_counts_taken() -> None:
    session = Session(mlp(), threads=np.int64(2))  # type: ignore[arg-type]
    assert session.threads == 2
    x = np.ma.masked_array(np.ones((1, *session.graph.inputs["x"]), np.float32), mask=False)
    with pytest.raises(ShapeError, match="masked"):
        session(x)
