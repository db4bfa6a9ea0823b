"""Powers of two beyond the table: exact boundaries, ranges, and widths that are for training alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export, verify
from lobit.errors import ConfigError

ROOT = np.float32(np.sqrt(np.float32(2)))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_turn_at_the_square_root_of_two_of_float32(bits):
    top = 2 ** (bits - 1) - 2
    for e in range(-1, top + 1):
        edge = ROOT * np.float32(2.0**e)
        x = np.array([np.nextafter(edge, np.float32(0)), edge]) * np.float32(2.0**-top)
        below, above = Q.log_quant(torch.tensor(x), bits).tolist()
        assert below == (2.0**e if e >= 0 else 0)
        assert above == 2.0 ** min(e + 1, top)
        assert Q.log_quant(torch.tensor(-x), bits).tolist() == [-below, -above]


def test_codes_at_both_sides_of_every_boundary_are_those_of_the_packed_chain(tmp_path):
    edges = np.concatenate([[np.nextafter(ROOT * 2.0**e, 0, dtype=np.float32), ROOT * 2.0**e, 2.0**e] for e in range(-9, 4)]).astype(
        np.float32
    )
    x = torch.tensor(np.concatenate([edges, -edges, [0.0, -0.0, 1e-40, 3e38]]).astype(np.float32)).reshape(-1, 1)
    for bits in (2, 3, 4):
        torch.manual_seed(bits)
        net = nn.Sequential(
            lnn.Linear(1, 3, weight_quantizer={"name": "log", "bits": bits, "top": None}, input_quantizer={"name": "log", "bits": bits})
        )
        net.eval()
        export(net, x[:4], tmp_path / "net.lobit", strict=True)
        report = verify(net, tmp_path / "net.lobit", x)
        assert report.ok
        assert report.equal == report.compared == len(x)


def test_the_range_from_weights_fits_each_channel():
    w = torch.randn(4, 50) * torch.tensor([[1e-3], [0.1], [1.0], [40.0]])
    q = Q.LogQuantWeights(3, top=None)(w)
    largest = w.abs().amax(1).double().numpy()
    np.testing.assert_array_equal(q.scale.flatten().numpy() * 4, np.exp2(np.rint(np.log2(largest))))
    assert (q.codes.abs().amax(1) == 4).all()
    zeros = Q.LogQuantWeights(3, top=None)(torch.zeros(2, 3))
    assert not zeros.values().any()


@pytest.mark.parametrize("top", [-3, 0, 5])
def test_latent_weights_are_clipped_to_the_range(top):
    assert Q.LogQuantWeights(3, top=top).latent_range == (-(2.0**top), 2.0**top)
    assert Q.LogQuantWeights(3, top=None).latent_range is None


@pytest.mark.parametrize("bits", [5, 8])
def test_wide_powers_train_on_fractions_that_no_layer_mistakes_for_integers(bits):
    """The sums are those of the values, in training and in eval."""
    torch.manual_seed(bits)
    log = {"name": "log", "bits": bits}
    layer = lnn.Linear(40, 6, weight_quantizer={**log, "top": None}, input_quantizer=log)
    x = torch.randn(9, 40, requires_grad=True)
    weight = layer.weight_quantizer(layer.weight).values()
    wanted = layer.input_quantizer(x).values() @ weight.T + layer.bias
    (expected,) = torch.autograd.grad(wanted.square().sum(), x)
    for training in (True, False):
        y = layer.train(training)(x)
        torch.testing.assert_close(y, wanted)
        (got,) = torch.autograd.grad(y.square().sum(), x)
        torch.testing.assert_close(got, expected)
    assert weight.abs().max() > 0
    with pytest.raises(ConfigError, match=f"'log' of {bits} bits .* for training alone. Choose 2 to 4 bits"):
        _ = layer.input_quantizer.code_type
    dropped = lnn.Linear(40, 6, weight_quantizer="sign", input_quantizer=Q.CodeDropout(Q.LogQuant(bits), 0.5))
    assert torch.isfinite(dropped(x)).all()


def test_not_a_number_stays_one():
    assert Q.log_quant(torch.tensor([float("nan")]), 3).isnan().all()


def test_whether_codes_are_fractions_follows_the_width():
    for quantizer in (Q.LogQuant(4), Q.LogQuantWeights(4), Q.CodeDropout(Q.LogQuant(4), 0.1)):
        for bits, fractions in ((8, True), (2, False), (5, True), (4, False)):
            quantizer.set_bits(bits)
            assert quantizer.fractions is fractions


@pytest.mark.parametrize(("weights", "inputs"), [("log", "sign"), ("sign", "log")])
def test_wide_powers_train_in_a_recurrent_layer(weights, inputs):
    """With float copies in place of codes as the oracle: the layer's own steps without kept integers."""
    given = {"log": {"name": "log", "bits": 5}, "sign": "sign"}
    torch.manual_seed(0)
    layer = lnn.LSTM(5, 4, weight_quantizer=given[weights], input_quantizer=given[inputs])
    x, found = torch.randn(6, 3, 5), []
    for training in (True, False):
        layer.train(training).zero_grad()
        y = layer(x)[0]
        y.square().sum().backward()
        found.append([y.detach(), *(parameter.grad.clone() for parameter in layer.parameters())])
    compiled = torch.compile(layer.train(), backend="eager")
    layer.zero_grad()
    y = compiled(x)[0]
    y.square().sum().backward()
    wanted = [y.detach(), *(parameter.grad for parameter in layer.parameters())]
    for got in found:
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)
