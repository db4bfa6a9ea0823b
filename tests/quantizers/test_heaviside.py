"""The unit step in files: what is positive is 1 however small, on every instruction set and in C."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export
from lobit.capture.capture import capture
from lobit.errors import ConfigError
from lobit.runtime import Session, isas
from tests.targets.machine import Program, need

TINY = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.2e-38, -1.2e-38, 2.0**-100, 1e-20, -1e-20, 0.4, -0.4, 0.6, 1e30, -1e30, 3e38, -3e38], np.float32
)


def layer(weights="heaviside"):
    torch.manual_seed(0)
    model = nn.Sequential(lnn.Linear(16, 16, bias=False, weight_quantizer=weights, input_quantizer="heaviside"))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(16) if weights == "heaviside" else torch.randn(16, 16))
    return model.eval()


@pytest.mark.parametrize("isa", isas())
def test_positive_is_one_however_small(isa):
    model = layer()
    x = torch.tensor(np.stack([TINY, np.roll(TINY, 1)]))
    y = Session(capture(model, (x,)).graph, isa=isa)(x.numpy())
    np.testing.assert_array_equal(y, (x.numpy() > 0).astype(np.float32))
    np.testing.assert_array_equal(y, model(x).detach().numpy())


def test_positive_is_one_in_c_too(tmp_path):
    need("gcc")
    x = torch.tensor(TINY[None])
    graph = capture(layer(), (x,)).graph
    (y,) = Program(tmp_path, [graph])(0, TINY[None])[:1]
    np.testing.assert_array_equal(np.asarray(y).reshape(-1), (TINY > 0).astype(np.float32))


def test_a_convolution_of_steps_and_masks_pads_with_real_zero_and_folds_into_thresholds(tmp_path):
    torch.manual_seed(1)
    kinds = {"weight_quantizer": "sign", "input_quantizer": "heaviside"}
    model = nn.Sequential(
        lnn.Conv2d(2, 8, 3, padding=1, **kinds),
        lnn.BatchNorm2d(8),
        lnn.Conv2d(8, 8, 3, padding=1, weight_quantizer="heaviside", input_quantizer="heaviside"),
        lnn.BatchNorm2d(8),
        lnn.Conv2d(8, 3, 3, padding=1, **kinds),
    )
    x = torch.randn(6, 2, 8, 8)
    model(x)
    report = export(model.eval(), x, tmp_path / "net.lobit", strict=True)
    assert report.verification.ok
    assert [node.op for node in capture(model, (x,)).graph.nodes].count("threshold") == 2


def test_it_has_one_bit():
    with pytest.raises(ConfigError, match="quantizer 'heaviside' has 1 bit, not 2"):
        Q.Heaviside(2)
