"""Dropout of codes."""

from __future__ import annotations

import pytest
import torch

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.errors import ConfigError


def test_dropped_activations_are_zero_and_sums_stay_integers():
    torch.manual_seed(0)
    quantizer = Q.CodeDropout(Q.Sign(), 0.25)
    x = torch.randn(200, 100, requires_grad=True)
    q = quantizer(x)
    assert set(q.codes.detach().unique().tolist()) == {-1.0, 0.0, 1.0}
    share = (q.codes == 0).double().mean().item()
    assert abs(share - 0.25) < 4.5 * (0.25 * 0.75 / x.numel()) ** 0.5
    assert q.scale.item() == pytest.approx(1 / 0.75)
    kept = q.codes.detach() != 0
    torch.testing.assert_close(q.codes.detach()[kept], torch.where(x >= 0, 1.0, -1.0)[kept], rtol=0, atol=0)
    q.codes.sum().backward()
    torch.testing.assert_close(x.grad, (kept & (x.detach().abs() <= 1)).float(), rtol=0, atol=0)


def test_eval_is_the_quantizer_alone():
    inner = Q.LinearQuant(3)
    quantizer = Q.CodeDropout(inner, 0.5).eval()
    x = torch.randn(50)
    ours, theirs = quantizer(x), inner(x)
    assert torch.equal(ours.codes, theirs.codes)
    assert ours.scale == theirs.scale
    assert (ours.zero, ours.offset) == (theirs.zero, theirs.offset)
    assert quantizer.code_type == inner.code_type
    assert quantizer.steps() == inner.steps()


def test_the_layer_is_named_by_the_quantizer_inside():
    layer = lnn.Linear(3, 2, weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.LSQ(2), 0.5)).eval()
    with pytest.raises(ConfigError, match=r"Linear with weights of shape \(2, 3\)"):
        layer(torch.ones(1, 3))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_that_is_none_is_refused(p):
    with pytest.raises(ConfigError, match="from 0 to less than 1"):
        Q.CodeDropout(Q.Sign(), p)
