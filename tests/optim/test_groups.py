"""Groups by rules hold every parameter once, or say which do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.optim import groups_by, is_latent, is_one_bit, is_step, parameter_groups, step_factor, with_bop
from lobit.quantizers import LSQ, CodeDropout


def model():
    return nn.Sequential(
        lnn.Linear(8, 6, weight_quantizer="sign", input_quantizer=CodeDropout(LSQ(4), 0.1)),
        lnn.BatchNorm1d(6),
        lnn.Linear(6, 4, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 2}),
        lnn.Linear(4, 4, weight_quantizer={"name": "lsq", "bits": 1}),
    )


def names(net, group):
    of = {id(parameter): name for name, parameter in net.named_parameters()}
    return [of[id(parameter)] for parameter in group["params"]]


def test_predicates_tell_latent_one_bit_and_learned_parameters():
    net = model()
    for predicate, wanted in (
        (is_latent, ["0.weight"]),
        (is_one_bit, ["0.weight", "3.weight"]),
        (is_step, ["0.input_quantizer.quantizer.step", "2.weight_quantizer.step", "2.input_quantizer.step", "3.weight_quantizer.step"]),
    ):
        assert names(net, groups_by(net, {predicate: {}}, rest={})[0]) == wanted


def test_rules_are_patterns_and_predicates_in_their_order():
    net = model()
    is_norm = lambda name, parameter, module: isinstance(module, nn.BatchNorm1d)  # noqa: E731
    found = groups_by(net, {is_step: {"lr": 1.0}, "[023].bias": {"lr": 2.0}, is_norm: {"lr": 3.0}}, rest={"lr": 4.0})
    assert [group["lr"] for group in found] == [1.0, 2.0, 3.0, 4.0]
    assert names(net, found[1]) == ["0.bias", "2.bias", "3.bias"]
    assert names(net, found[3]) == ["0.weight", "2.weight", "3.weight"]
    assert sum(len(group["params"]) for group in found) == len(list(net.parameters()))
    torch.optim.Adam(found)


def test_overlaps_leftovers_and_patterns_that_fit_nothing_are_named():
    net = model()
    with pytest.raises(ConfigError, match=r"'0\.weight' would be in several groups: '0\.weight' is taken by is_latent and '\*weight'"):
        groups_by(net, {is_latent: {}, "*weight": {}}, rest={})
    with pytest.raises(
        ConfigError, match=r"no rule takes '0\.bias', '0\.input_quantizer\.quantizer\.step', '1\.weight', '1\.bias' and 7 more"
    ):
        groups_by(net, {"0.weight": {}})
    with pytest.raises(ConfigError, match=r"no parameter's name fits '0\.wieght'; there is '0\.weight'"):
        groups_by(net, {"0.wieght": {}}, rest={})


def test_a_predicate_that_takes_nothing_makes_no_group():
    assert [len(group["params"]) for group in groups_by(nn.Linear(2, 2), {is_latent: {"lr": 1.0}}, rest={})] == [2]


def test_a_step_scale_gives_each_latent_weight_its_rate():
    net = nn.Sequential(*(lnn.Linear(size, 4, weight_quantizer="sign") for size in (3, 9)))
    found = groups_by(net, {"*.weight": {"lr": 0.1, "step_scale": "glorot"}}, rest={"lr": 0.1})
    for group, layer in zip(found, net, strict=False):
        assert group["params"] == [layer.weight]
        assert group["step_factor"] == step_factor(layer, "glorot")
        assert group["lr"] == 0.1 * group["step_factor"]
    with pytest.raises(ConfigError, match="give the group an 'lr'"):
        groups_by(net, {is_latent: {"step_scale": "glorot"}}, rest={})


def test_a_shared_parameter_and_a_step_behind_dropout_stand_once():
    net = model()
    net.append(net[1])
    listed = [id(parameter) for group in parameter_groups(net, 0.1) for parameter in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(net.parameters()))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_torchs_optimizers_take_the_groups_in_every_implementation(kind, fused):
    net = model()
    for settings in ({"fused": True}, {"foreach": True}) if fused else ({},):
        optimizer = kind(parameter_groups(net, 0.01, step_scale="power-of-two"), lr=0.01, **settings)
        net(torch.randn(5, 8)).square().mean().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("bits", [5, 8])
def test_weights_without_a_code_type_are_not_one_bit(bits):
    log = {"name": "log", "bits": bits}
    net = nn.Sequential(lnn.Linear(4, 3, weight_quantizer=log, input_quantizer=log), lnn.Linear(3, 2, weight_quantizer="sign"))
    groups = groups_by(net, {is_one_bit: {"lr": 1}}, rest={"lr": 2})
    assert [names(net, group) for group in groups] == [["1.weight"], ["0.weight", "0.bias", "1.bias"]]
    optimizer = with_bop(net, torch.optim.SGD)
    assert [group["params"] for group in optimizer.optimizers[0].param_groups] == [[net[1].weight]]
