"""Each net of `tests.foreign.nets`: converted, trained, exported with all codes equal, or refused with the operator's name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

import lobit
from lobit.errors import ExportError, LobitError
from lobit.nn import QuantizedLayer
from tests.foreign import nets

PICTURE = (3, 16, 16)
BUILT = {
    "LeNet, functional": (nets.LeNet, (1, 16, 16)),
    "named sequence": (nets.named_sequence, PICTURE),
    "ResNet, basic blocks": (lambda: nets.ResNet(nets.BasicBlock), (3, 32, 32)),
    "ResNet, bottlenecks": (lambda: nets.ResNet(nets.Bottleneck), (3, 32, 32)),
    "VGG": (nets.VGG, PICTURE),
    "MobileNetV2": (nets.MobileNetV2, PICTURE),
    "SqueezeNet": (nets.SqueezeNet, (3, 17, 17)),
    "DenseNet": (nets.DenseNet, (3, 8, 8)),
    "Inception": (nets.Inception, (3, 8, 8)),
    "U-Net that resizes": (nets.ResizingUNet, (3, 8, 8)),
    "padded by function and by module": (nets.Padded, PICTURE),
    "shared block": (nets.Shared, (12,)),
    "tied weights": (nets.Tied, (12,)),
    "two outputs": (nets.TwoHeads, (3, 8, 8)),
    "a dictionary of outputs": (lambda: nets.TwoHeads(dictionary=True), (3, 8, 8)),
    "data parallel": (lambda: nn.DataParallel(nets.VGG()), PICTURE),
}
"""Nets that are exported, and the shape of their input."""
REFUSED = {
    "squeeze and excite": (nets.SqueezeExcite, (3, 8, 8), r"operator aten\.sigmoid"),
    "U-Net": (nets.UNet, (3, 8, 8), r"layer 'up' \(ConvTranspose2d\)"),
}
"""Nets that are trained, and refused by name when they are exported."""


def converted(build, shape, bits="W4A4"):
    """The net, converted and brought to life by five steps; the loss before and after, and which layers got a gradient."""
    torch.manual_seed(0)
    model = build()
    report = lobit.quantize_(model, bits)
    x = torch.randn(16, *shape)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        torch.manual_seed(1)  # the same dropout
        loss = sum(F.cross_entropy(y.flatten(1), torch.arange(16) % y.flatten(1).shape[1]) for y in tree_leaves(model(x)))
        loss.backward()
        losses.append(loss.item())
        gradients = {
            path: layer.weight.grad for path, layer in model.named_modules() if isinstance(layer, QuantizedLayer) and layer.is_quantized
        }
        optimizer.step()
    assert set(gradients) == set(report.quantized)
    return model, x, losses, gradients


def check_training(losses, gradients):
    assert losses[-1] < losses[0]
    assert len(gradients) > 1
    for path, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), path
        assert gradient.abs().sum() > 0, path


def check_codes(report):
    """All codes equal; behind an inexact layer, which the report names, all but the few that stand at a rounding boundary."""
    assert report.verification.ok
    for row in report.verification.rows:
        assert row.compared > 0
        assert row.equal == row.compared if row.exact else row.name.removesuffix(".input") in report.inexact, row


@pytest.mark.parametrize("name", BUILT)
def test_nets_of_others_are_converted_trained_and_exported_with_all_codes_equal(name, tmp_path):
    build, shape = BUILT[name]
    model, x, losses, gradients = converted(build, shape)
    check_training(losses, gradients)
    report = lobit.export(model.eval(), x, tmp_path / "net.lobit")
    assert {layer.name.partition("@")[0] for layer in report.layers if layer.bits} == set(gradients)
    check_codes(report)


@pytest.mark.parametrize("name", REFUSED)
def test_nets_outside_the_operators_are_trained_and_refused_by_name(name, tmp_path):
    build, shape, message = REFUSED[name]
    model, x, losses, gradients = converted(build, shape)
    check_training(losses, gradients)
    with pytest.raises(ExportError, match=message):
        lobit.export(model.eval(), x, tmp_path / "net.lobit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", ["W1A1", "W1A2", "W2A2", "W8A8", "W2A8"])
@pytest.mark.parametrize("name", ["LeNet, functional", "ResNet, basic blocks", "MobileNetV2"])
def test_other_widths_of_some(name, bits, tmp_path):
    build, shape = BUILT[name]
    model, x, _, gradients = converted(build, shape, bits)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    report = lobit.export(model.eval(), x, tmp_path / "net.lobit")
    check_codes(report)


def test_a_net_of_two_inputs_is_exported(tmp_path):
    torch.manual_seed(0)
    model = nets.TwoInputs()
    lobit.quantize_(model, "W4A4")
    x = (torch.randn(8, 1, 4, 4), torch.randn(8, 5))
    model(*x).square().mean().backward()
    report = lobit.export(model.eval(), x, tmp_path / "net.lobit")
    check_codes(report)


def test_shared_blocks_stay_one_and_tied_weights_stay_tied():
    model, *_ = converted(nets.Shared, (12,))
    assert model.again is model.block
    model, *_ = converted(nets.Tied, (12,))
    assert model.a.weight is model.b.weight
    assert len(list(model.parameters())) == len({id(p) for p in model.parameters()})


def test_words_are_trained_and_refused_at_export(tmp_path):
    torch.manual_seed(0)
    model = nets.TextCNN()
    report = lobit.quantize_(model, "W4A4")
    assert "embed" not in report.quantized
    words = torch.randint(30, (8, 12))
    F.cross_entropy(model(words), torch.arange(8) % 4).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(LobitError, match=r"layer '[\w.]*embed\w*' \(Embedding\) has no place"):
        lobit.export(model.eval(), words, tmp_path / "net.lobit")
