"""Random small nets: every family of quantizers, shapes with tails, batch norms of every sign."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit import optim
from lobit.quantizers import LSQ
from tests.capture.oracle import Residual

FAMILIES = ("lsq", "linear", "dorefa", "sign", "log", "ternary")


@st.composite
def quantizers(draw):
    """Weight and input quantizer of one layer."""
    family = draw(st.sampled_from(FAMILIES))
    w, a = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    if family == "sign":
        one_bit = {"weight_quantizer": draw(st.sampled_from(["sign", "magnitude_sign", "swish_sign"]))}
        return one_bit | {"input_quantizer": draw(st.sampled_from(["sign", "rsign", "stochastic_sign"]))}
    if family == "ternary":
        return {"weight_quantizer": "ternary", "input_quantizer": draw(st.sampled_from(["rsign", {"name": "lsq", "bits": a}]))}
    if family == "log":
        powers = {"name": "log", "bits": draw(st.integers(1, 4)), "top": draw(st.sampled_from([None, 0, -2]))}
        return {
            "weight_quantizer": powers,
            "input_quantizer": {"name": "log", "bits": draw(st.integers(1, 4)), "top": draw(st.integers(-1, 3))},
        }
    weights = "magnitude_sign" if family == "lsq" and w == 1 else {"name": family, "bits": w}
    return {"weight_quantizer": weights, "input_quantizer": {"name": family, "bits": a}}


@st.composite
def nets(draw):
    """A net and the shape of its input."""
    channels, height, width = draw(st.sampled_from([1, 2, 3, 5, 8, 33, 64, 65])), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    shape = (channels, height, width)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 3))):
        kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        stride, dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3))), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
        out = groups * draw(st.integers(1, max(1, 40 // groups)))
        layer = lnn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, draw(st.booleans()), **draw(quantizers()))
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip((height, width), padding, dilation, kernel, stride, strict=True)
        ]
        if min(height + 2 * padding[0] - dilation[0] * (kernel[0] - 1), width + 2 * padding[1] - dilation[1] * (kernel[1] - 1)) < 1:
            continue
        block: list[nn.Module] = [layer]
        if (out, *size) == (channels, height, width) and draw(st.booleans()):
            block = [Residual(nn.Sequential(layer, lnn.BatchNorm2d(out)))]
        channels, (height, width) = out, size
        if min(height, width) >= 2 and draw(st.booleans()):
            pool = draw(st.sampled_from(["max", "max padded", "average"]))
            block.append({"max": nn.MaxPool2d(2), "max padded": nn.MaxPool2d(2, 1, 1), "average": lnn.AvgPool2d(2)}[pool])
            height, width = (height + 1, width + 1) if pool == "max padded" else (height // 2, width // 2)
        block += [lnn.BatchNorm2d(channels)] if draw(st.booleans()) else []
        block += draw(st.sampled_from([[], [nn.ReLU()], [nn.Hardtanh()]]))
        layers += block
    features = channels * height * width
    layers.append(nn.Flatten())
    for out in draw(st.lists(st.sampled_from([1, 7, 32, 65]), min_size=1, max_size=2)):
        layers.append(lnn.Linear(features, out, draw(st.booleans()), **draw(quantizers())))
        layers += [lnn.BatchNorm1d(out)] if draw(st.booleans()) else []
        layers += draw(st.sampled_from([[], [nn.ReLU()]]))
        features = out
    return nn.Sequential(*layers), shape


def settle(model: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """Train three steps, then give batch norms statistics and factors of every sign, some zero."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(optim.parameter_groups(model, 0.01), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, *shape)).square().mean().backward()
        optimizer.step()
        optim.clip_latent_weights(model)
    for module in model.modules():
        if isinstance(module, LSQ) and not module.started:  # its layer has seen nothing but zeros, after a dead ReLU
            module.train()(torch.randn(64))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 3)
                module.running_var.uniform_(0.01, 20)
                module.weight.normal_().mul_(torch.rand(len(module.weight)) > 0.2)
                module.bias.normal_()
    return model.eval()
