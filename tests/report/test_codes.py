"""Histograms of codes: every level counted, against counts made one code at a time, and against what the model itself computes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import lobit
from lobit.bits import CodeType
from lobit.capture.capture import capture
from lobit.capture.verify import run_model
from lobit.errors import ConfigError, ShapeError
from lobit.report.codes import CodeHistogram, activation_codes, weight_codes
from lobit.runtime import Session


def histogram(code, counts, zero=0):
    return CodeHistogram("layer", CodeType.parse(code), zero, np.array(counts, np.int64))


@pytest.fixture(scope="module", params=["W2A2", "W1A1", "W4A3"])
def net(request):
    torch.manual_seed(3)
    model = lobit.models.create("digits-convnet", bits=request.param, width=4)
    x = torch.rand(37, 1, 8, 8)
    model(x)
    model.eval()
    return model, x, Session(capture(model, (x,)).graph)


def test_weights_are_counted_level_by_level(net):
    model, _, session = net
    rows = weight_codes(session.graph)
    assert [row.layer for row in rows] == ["0", "3", "8", "11"]
    for row in rows:
        made = Counter(model.get_submodule(row.layer).quantized_weight().codes.flatten().int().tolist())
        assert dict(zip(row.code.levels, row.counts.tolist(), strict=True)) == {level: made[level] for level in row.code.levels}


@pytest.mark.parametrize("batch_size", [1, 10, 1000])
def test_activations_are_those_of_the_model_whatever_the_batch(net, batch_size):
    model, x, session = net
    recorded, _ = run_model(model, (x,))
    rows = activation_codes(session, x.numpy(), batch_size)
    assert [row.layer for row in rows] == list(recorded)
    for row in rows:
        made = Counter(recorded[row.layer][0].ravel().tolist())
        assert dict(zip(row.code.levels, row.counts.tolist(), strict=True)) == {level: made[level] for level in row.code.levels}


def test_no_samples_give_histograms_of_nothing(net):
    _, x, session = net
    for row in activation_codes(session, x[:0].numpy()):
        assert row.total == row.used == 0
        assert row.entropy == row.at_ends == 0.0


def test_a_float_net_has_no_codes():
    model = lobit.models.create("digits-convnet", width=4).eval()
    session = Session(capture(model, (torch.rand(2, 1, 8, 8),)).graph)
    assert weight_codes(session.graph) == activation_codes(session, np.zeros((3, 1, 8, 8), np.float32)) == ()


def test_entropy_is_the_width_where_all_levels_are_alike_and_zero_where_one_is_used():
    assert histogram("signed3", [5] * 8).entropy == 3.0
    assert histogram("signed3", [0, 0, 7, 0, 0, 0, 0, 0]).entropy == 0.0
    assert histogram("ternary2", [1, 2, 1]).entropy == pytest.approx(-(0.5 * math.log2(0.5) + 2 * 0.25 * math.log2(0.25)))


def test_zeros_are_those_of_the_zero_point_and_ends_leave_them_out():
    signed = histogram("signed2", [1, 2, 3, 4])  # -2, -1, 0, 1
    assert (signed.zeros, signed.at_ends, signed.used) == (0.3, 0.5, 4)
    unsigned = histogram("unsigned2", [4, 3, 2, 1])
    assert (unsigned.zeros, unsigned.at_ends) == (0.4, 0.1)
    moved = histogram("unsigned2", [4, 3, 2, 1], zero=1)
    assert (moved.zeros, moved.at_ends) == (0.3, 0.5)
    assert histogram("odd1", [3, 1]).zeros is None
    assert histogram("odd1", [3, 1]).at_ends == 1.0


def test_uneven_alphabets_are_counted_by_level_not_by_place():
    from lobit.report.codes import _count

    code = CodeType("log2", 4)
    codes = np.array([-64, 0, 64, 64, 1, -4], np.int16)
    assert dict(zip(code.levels, _count(codes, code).tolist(), strict=True)) == {
        level: codes.tolist().count(level) for level in code.levels
    }


def test_wrong_batches_are_refused_by_name(net):
    _, x, session = net
    with pytest.raises(ConfigError, match="batch_size is 0"):
        activation_codes(session, x.numpy(), 0)
    with pytest.raises(ShapeError, match="2 inputs"):
        activation_codes(session, [x.numpy(), x.numpy()])
    with pytest.raises(ShapeError, match="one batch"):
        activation_codes(session, [x.numpy(), x[:3].numpy()])
