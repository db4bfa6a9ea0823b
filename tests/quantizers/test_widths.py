"""Quantizers that change their width: to which they may, and that they then are as ones made with it."""

from __future__ import annotations

import copy

import pytest
import torch

from lobit import nn as lnn
from lobit.bits import Alphabet
from lobit.errors import ConfigError
from lobit.quantizers import LSQ, AffineActivations, AffineWeights, CodeDropout, LogQuant, LogQuantWeights, get, names


@pytest.mark.parametrize(("role", "name"), [(role, name) for role in ("weights", "activations") for name in names(role)])
def test_every_quantizer_that_changes_its_width_is_as_one_made_with_it(role, name):
    """Whatever a class keeps of its width must follow."""
    torch.manual_seed(1)
    x = torch.rand(6, 5) - 0.5
    for first, then in ((8, 4), (4, 2), (2, 4), (8, 1)):
        try:
            made, changed = get(name, role, bits=then), get(name, role, bits=first)
        except ConfigError:
            continue
        if role == "weights":
            made.attach(x)
            changed.attach(x)
        changed(x * 3)
        try:
            changed.set_bits(then)
        except ConfigError:
            continue
        torch.manual_seed(2)
        wanted = made(x)
        torch.manual_seed(2)
        found = changed(x)
        assert torch.equal(found.codes, wanted.codes), (first, then)
        assert torch.equal(torch.as_tensor(found.scale), torch.as_tensor(wanted.scale)), (first, then)
        assert changed.code_type == made.code_type


def test_a_width_of_one_bit_and_back_decides_the_sign_anew():
    quantizer = LSQ(1)
    quantizer(torch.randn(50))
    assert quantizer.code_type.alphabet is Alphabet.ODD
    assert not quantizer.step.requires_grad
    quantizer.set_bits(4)
    quantizer(torch.rand(50))
    assert quantizer.code_type.alphabet is Alphabet.UNSIGNED
    assert quantizer.step.requires_grad
    assert copy.deepcopy(quantizer).bits == 4


@pytest.mark.parametrize(("settings", "bits", "width"), [({"symmetric": False}, 4, 8), ({"symmetric": True}, 4, 1)])
def test_a_width_is_tried_with_the_settings_of_the_quantizer_itself(settings, bits, width):
    quantizer = AffineWeights(bits, **settings)
    with pytest.raises(ConfigError, match="with a zero point have 1 to 7 bits|has 2 to 8 bits, not 1"):
        quantizer.set_bits(width)
    assert quantizer.bits == bits
    assert int(quantizer.width) == bits


@pytest.mark.parametrize(
    ("symmetric", "signed", "narrow"), [(False, None, 1), (True, False, 1), (True, None, 2), (True, True, 2), (False, True, 2)]
)
def test_affine_activations_change_to_the_widths_that_they_can_be_made_with(symmetric, signed, narrow):
    quantizer = AffineActivations(4, symmetric, signed)
    for bits in range(10):
        if narrow <= bits <= 8:
            quantizer.set_bits(bits)
        else:
            with pytest.raises(ConfigError, match=f"has {narrow} to 8 bits, not {bits}"):
                quantizer.set_bits(bits)
    assert quantizer.bits == 8


@pytest.mark.parametrize(("first", "then"), [(4, 8), (8, 4)])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_after_a_change_of_powers_of_two_are_those_of_a_layer_made_with_the_width(first, then, dropout):
    def layer(bits):
        torch.manual_seed(0)
        inputs = CodeDropout(LogQuant(bits), 0.0) if dropout else LogQuant(bits)
        return lnn.Linear(20, 4, weight_quantizer=LogQuantWeights(bits), input_quantizer=inputs)

    made, changed = layer(then), layer(first)
    changed.weight_quantizer.set_bits(then)
    changed.input_quantizer.set_bits(then)
    found = []
    for each in (made, changed):
        x = (torch.arange(100.0).reshape(5, 20) / 130 - 0.3).requires_grad_()
        each(x).square().sum().backward()
        found.append((x.grad, each.weight.grad))
    assert found[0][0].any()
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
