"""PACT's learned clipping level: its gradient, its penalty, its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from lobit import nn as lnn
from lobit import optim
from lobit import quantizers as Q
from lobit.errors import ConfigError


@pytest.mark.parametrize("bits", range(1, 9))
@given(
    x=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-3, 6, width=32)),
    alpha=st.floats(0.125, 5, width=32),
)
def test_gradients_are_the_papers_one_from_alpha_on_and_none_below(bits, x, alpha):
    quantizer = Q.PACT(bits, alpha)
    t = torch.tensor(x, requires_grad=True)
    g = np.linspace(-1, 2, x.size)
    (quantizer(t).values() * torch.tensor(g, dtype=torch.float32)).sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), g * ((x >= 0) & (x < alpha)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(quantizer.alpha.grad.item(), (g * (x >= alpha)).sum(), rtol=1e-4, atol=1e-5)


def test_the_pure_function_needs_no_module_and_no_gradient():
    x = torch.tensor([-1.0, 0.4, 1.1, 9.0])
    codes = Q.pact(x, torch.tensor(3.0), 2)
    assert codes.tolist() == [0.0, 0.0, 1.0, 3.0]
    assert not codes.requires_grad


def test_one_byte_is_kept_for_each_value():
    x = torch.randn(1000, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        Q.PACT(4)(x).codes.sum()
    assert sum(t.numel() * t.element_size() for t in kept if t.numel() > 1) == 1000


def test_the_level_shrinks_under_its_penalty_and_grows_where_clipping_costs():
    torch.manual_seed(0)
    x = torch.rand(256) * 2
    quantizer = Q.PACT(4)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.05)
    levels = []
    for _ in range(600):
        optimizer.zero_grad()
        ((quantizer(x).values() - x).square().mean() + Q.pact_penalty(nn.Sequential(quantizer), 1e-3)).backward()
        optimizer.step()
        levels.append(quantizer.alpha.item())
    assert 1.5 < levels[-1] < 2.2
    assert max(levels) < 10.1


def test_the_penalty_has_the_gradient_of_weight_decay():
    net = nn.Sequential(
        *(lnn.Linear(2, 2, weight_quantizer="sign", input_quantizer={"name": "pact", "bits": 2, "alpha": a}) for a in (2.0, 5.0))
    )
    penalty = Q.pact_penalty(net, 0.1)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.05 * 29)
    assert [layer.input_quantizer.alpha.grad.item() for layer in net] == pytest.approx([0.2, 0.5])


@pytest.mark.parametrize(("model", "decay", "message"), [(nn.Sequential(), 0.1, "no PACT"), (nn.Sequential(Q.PACT(2)), -1, "at least 0")])
def test_a_penalty_of_nothing_is_refused(model, decay, message):
    with pytest.raises(ConfigError, match=message):
        Q.pact_penalty(model, decay)


def test_it_needs_no_data_and_resets_to_its_start():
    quantizer = Q.PACT(2, 3.0).eval()
    assert quantizer(torch.tensor([5.0])).codes.item() == 3
    assert quantizer.steps()[0][1].item() == 1.0
    with torch.no_grad():
        quantizer.alpha.fill_(1.0)
    quantizer.reset()
    assert quantizer.alpha.item() == 3.0


def test_a_level_that_left_its_range_is_put_back():
    net = nn.Sequential(lnn.Linear(2, 2, weight_quantizer="sign", input_quantizer={"name": "pact", "bits": 2}))
    with torch.no_grad():
        net[0].input_quantizer.alpha.fill_(-1.0)
    optim.clip_latent_weights(net)
    assert net[0].input_quantizer.alpha.item() > 0
    with torch.no_grad():
        net[0].input_quantizer.alpha.fill_(torch.nan)
    with pytest.raises(ConfigError, match="clipping level of a Linear .* is nan"):
        net.eval()(torch.randn(1, 2))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), "high"])
def test_a_level_that_clips_nothing_or_all_is_refused(alpha):
    with pytest.raises(ConfigError, match="positive number"):
        Q.PACT(4, alpha)
