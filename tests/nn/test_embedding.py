"""Embedding: torch's without a quantizer; with one, codes times scales, and the gradient of a lookup in the quantized table."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit.errors import ConfigError
from tests.capture.oracle import weight_codes

QUANTIZERS = ["sign", "magnitude_sign", {"name": "lsq", "bits": 3}, {"name": "dorefa", "bits": 2}, {"name": "linear", "bits": 8}]


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 3), (2, 1, 4)])
@pytest.mark.parametrize(
    "settings_",
    [{}, {"padding_idx": 2}, {"padding_idx": -1, "scale_grad_by_freq": True}, {"sparse": True}, {"max_norm": 0.5, "norm_type": 1.0}],
)
def test_without_a_quantizer_it_is_torchs(shape, settings_):
    torch.manual_seed(0)
    ours, theirs = (package.Embedding(6, 4, **settings_) for package in (lnn, nn))
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == ["weight"]
    index = torch.randint(6, shape)
    ys = [table(index) for table in (ours, theirs)]
    assert torch.equal(*ys)
    for y in ys:
        y.square().sum().backward()
    assert ours.weight.grad.is_sparse == bool(settings_.get("sparse"))
    assert torch.equal(ours.weight.grad.to_dense(), theirs.weight.grad.to_dense())
    assert torch.equal(ours.weight, theirs.weight)  # as max_norm changed it


@settings(max_examples=40, deadline=None)
@given(
    quantizer=st.sampled_from(QUANTIZERS),
    rows=st.integers(1, 20),
    width=st.integers(1, 9),
    index=st.lists(st.integers(0, 10**6), max_size=12),
    seed=st.integers(0, 2**31),
)
def test_rows_are_codes_times_scales_bit_for_bit(quantizer, rows, width, index, seed):
    torch.manual_seed(seed)
    table = lnn.Embedding(rows, width, weight_quantizer=quantizer)
    index = torch.tensor(index, dtype=torch.int64) % rows
    table(index)
    table.eval()
    codes, scale = weight_codes(table.weight_quantizer, table.weight.detach().numpy())
    expected = (codes.astype(np.float32) * np.asarray(scale, np.float32))[index.numpy()]
    with torch.no_grad():
        np.testing.assert_array_equal(table(index).numpy(), expected)
    np.testing.assert_array_equal(table(index).detach().numpy(), expected)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("settings_", [{}, {"padding_idx": 3}, {"padding_idx": 0, "scale_grad_by_freq": True}])
def test_gradients_are_those_of_a_lookup_in_the_quantized_table(quantizer, settings_):
    torch.manual_seed(0)
    table = lnn.Embedding(7, 5, weight_quantizer=quantizer, **settings_)
    index = torch.tensor([[0, 3, 3, 6], [5, 0, 3, 1]])
    table(index)
    table = table.double()
    fake = copy.deepcopy(table)
    g = torch.randn(2, 4, 5, dtype=torch.float64)
    y = table(index)
    values = fake.weight_quantizer(fake.weight).values()
    z = F.embedding(index, values, table.padding_idx, scale_grad_by_freq=table.scale_grad_by_freq)
    torch.testing.assert_close(y, z)
    (y * g).sum().backward()
    (z * g).sum().backward()
    for (name, a), (_, b) in zip(table.named_parameters(), fake.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-7, msg=name)
    if "padding_idx" in settings_ and quantizer in ("sign", "magnitude_sign"):
        assert not table.weight.grad[table.padding_idx].any()


def test_each_row_has_a_step_of_its_own():
    table = lnn.Embedding(7, 5, padding_idx=1, weight_quantizer={"name": "lsq", "bits": 4})
    assert table.weight_quantizer.step.shape == (7, 1)
    table(torch.tensor([0, 1, 4])).square().sum().backward()
    assert (table.weight_quantizer.step.grad.flatten() != 0).tolist() == [True, False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("settings_", "words"),
    [({"max_norm": 1.0}, "max_norm=None"), ({"sparse": True}, "dense"), ({"input_quantizer": "sign"}, "unexpected")],
)
def test_what_a_quantized_table_cannot_do_is_refused(settings_, words):
    with pytest.raises((ConfigError, TypeError), match=words):
        lnn.Embedding(4, 3, weight_quantizer="sign", **settings_)
    with pytest.raises(ConfigError, match="multiplies nothing"):
        lnn.Embedding(4, 3).set_quantizers(None, lnn.Linear(2, 2, input_quantizer="sign").input_quantizer)


def test_a_table_of_half_floats_is_refused():
    with pytest.raises(ConfigError, match="keep them float32"):
        lnn.Embedding(4, 3, weight_quantizer="sign", dtype=torch.bfloat16)(torch.tensor([1]))


def test_a_table_is_made_from_given_rows():
    rows = torch.randn(4, 3)
    table = lnn.Embedding.from_pretrained(rows)
    assert torch.equal(table(torch.tensor([2])), rows[2:3])
    assert not table.weight.requires_grad


@torch.no_grad()
def test_kept_codes_follow_the_table_and_copies_live_on_their_own():
    torch.manual_seed(0)
    table, index = lnn.Embedding(6, 4, weight_quantizer="magnitude_sign").eval(), torch.tensor([0, 5, 5])
    y = table(index)
    assert table.quantized_weight().codes is table.quantized_weight().codes
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(twin(index), y)
        twin.weight.neg_()
        assert torch.equal(twin(index), -y)
        assert torch.equal(table(index), y)
    table.weight.mul_(-2)
    assert torch.equal(table(index), -2 * y)
    table.load_state_dict(twin.state_dict())
    assert torch.equal(table(index), -y)


@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_table_is_one_graph_and_the_same(training):
    torch.manual_seed(0)
    table, index = lnn.Embedding(9, 4, padding_idx=2, weight_quantizer={"name": "lsq", "bits": 4}), torch.tensor([[0, 2, 8]])
    table(index)
    table.train(training)
    results = []
    for model in (table, torch.compile(table, backend="aot_eager", fullgraph=True)):
        table.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = model(index)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in table.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_table_learns():
    """Rows of 2 bits learn to be told apart by a float layer: a lookup trains."""
    torch.manual_seed(0)
    net = nn.Sequential(lnn.Embedding(12, 16, weight_quantizer={"name": "lsq", "bits": 2}), nn.Linear(16, 3))
    index, labels = torch.arange(12), torch.arange(12) % 3
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(index), labels).backward()
        optimizer.step()
    assert (net.eval()(index).argmax(1) == labels).all()
