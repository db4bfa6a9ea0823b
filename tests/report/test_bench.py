"""What `lobit bench` reports follows from its timings, its limits and the file."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.format import write_file
from lobit.report.bench import LOBIT, _layers, bench, plane_products
from lobit.report.bench_table import bench_text, write_bench_picture
from lobit.runtime import Session
from tests.report.test_peers import one_bit_mlp, wide_codes
from tests.runtime.nets import Net


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "net.lobit"
    write_file(path, one_bit_mlp().graph())
    return bench(path, batches=(1, 3), seconds=0.02)


def test_every_net_is_timed_at_every_batch(result):
    assert [row.batch for row in result.batches] == [1, 3]
    for row in result.batches:
        assert list(row.timings) == [LOBIT, "torch_fp32", "ort_fp32", "ort_int8"]
        assert all(0 < timing.best_ms <= timing.median_ms for timing in row.timings.values())


def test_ratios_and_rates_follow_from_the_best_times(result):
    row = result.batches[1]
    plain = result.as_dict()["batches"][1]
    assert plain["times_faster_than"]["ort_int8"] == row.timings["ort_int8"].best_ms / row.timings[LOBIT].best_ms
    assert plain["images_per_second"][LOBIT] == pytest.approx(3 / (row.timings[LOBIT].best_ms / 1e3))


def test_layers_are_those_of_the_session_and_their_shares_those_of_the_limits(result):
    rows = Session(one_bit_mlp().graph()).explain().rows
    for batch in result.batches:
        assert [layer.name for layer in batch.layers] == [row.name for row in rows]
        for layer, row in zip(batch.layers, rows, strict=True):
            assert bool(layer.limit) == bool(row.macs)
            if layer.limit and result.limits[layer.limit]:
                assert layer.limit_share == pytest.approx(layer.gmacs * layer.plane_products / result.limits[layer.limit])


def test_bytes_are_those_of_the_file_and_of_the_float_weights(result):
    weights = 35 * 33 + 33 * 20 + 20 * 9 + 9 * 6
    assert result.nbytes["lobit"] == os.path.getsize(result.path)
    assert result.nbytes["float_weights"] == 4 * weights


def test_planes_are_counted_as_products_of_their_widths():
    rows = Session(wide_codes().graph(), isa="scalar", prefer="planes").explain().rows
    products = [plane_products(row) for row in rows if row.macs]
    assert products == [2 * 8, 2 * 8]


def test_bit_planes_are_held_against_the_one_bit_limit_divided_by_their_products():
    net = Net(0, x=(200,))
    net.linear(net.codes("x", CodeType("unsigned", 2)), net.weight(CodeType("signed", 3), 40, 200))
    session = Session(net.graph(), isa="scalar", prefer="planes")
    x = np.zeros((1, 200), np.float32)
    layers = _layers(session.explain(), session.profile(x), {"one-bit": 1000.0, "int8": 100.0, "fp32": 10.0}, 2)
    products = [layer for layer in layers if layer.limit]
    assert [layer.limit for layer in products] == ["one-bit"]
    assert all(layer.limit_share == pytest.approx(layer.gmacs * 6 / 2000) for layer in products)


def test_text_fits_80_columns_and_json_holds_it_all(result):
    assert max(map(len, bench_text(result).splitlines())) <= 80
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["machine"]["cpu"]
    assert plain["limits"].keys() == {"one-bit", "int8", "fp32"}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_is_written(result, tmp_path, ending):
    write_bench_picture(tmp_path / f"b.{ending}", result)
    start = (tmp_path / f"b.{ending}").read_bytes()[:200]
    assert b"<svg" in start if ending == "svg" else start.startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="ends in"):
        write_bench_picture(tmp_path / "b.pdf", result)


def test_what_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch):
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("onnx", "torch") else find(name))
    found = bench(one_bit_mlp().graph(), batches=[1], seconds=0.01)
    assert list(found.batches[0].timings) == [LOBIT]
    assert found.left_out == {
        "torch": "torch not installed: pip install 'lobit[train]'",
        "onnxruntime": "onnx not installed: pip install 'lobit[bench]'",
    }
    assert "onnx not installed" in bench_text(found)


@pytest.mark.parametrize(
    "settings",
    [{"batches": []}, {"batches": [0]}, {"seconds": 0}, {"seconds": float("nan")}, {"wanted": ["tensorflow"]}, {"core": 100_000}],
)
def test_settings_that_are_wrong_are_refused(settings):
    with pytest.raises(ConfigError):
        bench(one_bit_mlp().graph(), **{"seconds": 0.01, "wanted": [], **settings})


def test_the_thread_may_run_where_it_might_before():
    before = os.sched_getaffinity(0)
    bench(one_bit_mlp().graph(), batches=[1], seconds=0.01, wanted=[])
    assert os.sched_getaffinity(0) == before


def test_int8_runs_as_integers_from_end_to_end(tmp_path):
    """A peer that goes back to floats between its layers would be no fair one."""
    import onnx
    import onnxruntime

    from lobit.report import peers
    from lobit.report.floatnet import clamp_first, float_net
    from lobit.report.onnx_peer import write_onnx
    from tests.report.nets import captured

    net = float_net(captured("digits-convnet", "W2A2"))
    write_onnx(clamp_first(net), tmp_path / "fp32.onnx")
    peers._write_int8(
        tmp_path / "fp32.onnx", tmp_path / "int8.onnx", {name: np.ones((2, *shape), np.float32) for name, shape in net.inputs.items()}
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QGemm") == 2
    assert kinds.count("DequantizeLinear") == 1
