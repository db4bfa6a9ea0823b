"""The ways to train a net: PyTorch's, lobit's and Brevitas's, each from the same float net."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import lobit


@dataclass(frozen=True)
class Variant:
    """A conversion of the float net, and how its step runs.

    Attributes
    ----------
    masks_only : bool or None
        Whether its quantizers keep masks alone; None where nothing is quantized.
    """

    name: str
    convert: Callable[[nn.Module], nn.Module]
    autocast: bool = False
    compiled: bool = False
    masks_only: bool | None = None


def lobit_net(policy: Any) -> Callable[[nn.Module], nn.Module]:
    """`lobit.quantize_` on a copy: first and last product with 8 bits, recurrent layers as the policy says."""

    def convert(net: nn.Module) -> nn.Module:
        copied = copy.deepcopy(net)
        recurrent = any(isinstance(module, nn.LSTM) for module in copied.modules())
        head = any(isinstance(module, nn.Linear) for module in copied.modules())
        lobit.quantize_(copied, policy, first=None if recurrent else "W8A8", last="W8A8" if head else None)
        return copied

    return convert


def brevitas_net(bits: int) -> Callable[[nn.Module], nn.Module]:
    """Brevitas layers in the place of torch's, first and last with 8 bits."""

    def convert(net: nn.Module) -> nn.Module:
        import brevitas.nn as qnn
        from brevitas import quant

        copied = copy.deepcopy(net)
        products = [(path, m) for path, m in copied.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for path, module in products:
            width = 8 if path in (products[0][0], products[-1][0]) else bits
            if width == 1:
                how: dict[str, Any] = {
                    "weight_quant": quant.SignedBinaryWeightPerTensorConst,
                    "input_quant": quant.SignedBinaryActPerTensorConst,
                }
            else:
                how = {
                    "weight_quant": quant.Int8WeightPerChannelFloat,
                    "weight_bit_width": width,
                    "input_quant": quant.Int8ActPerTensorFloat,
                    "input_bit_width": width,
                }
            _put(copied, path, _brevitas_layer(qnn, module, how))
        for path, module in list(copied.named_modules()):
            if isinstance(module, nn.LSTM):
                _put(copied, path, _brevitas_lstm(qnn, quant, module, bits))
        return copied

    return convert


def _brevitas_layer(qnn: Any, module: nn.Module, how: dict[str, Any]) -> nn.Module:
    bias = module.bias is not None
    if isinstance(module, nn.Conv2d):
        made = qnn.QuantConv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding, bias=bias, **how
        )  # fmt: skip
    else:
        made = qnn.QuantLinear(module.in_features, module.out_features, bias, **how)
    made.weight = module.weight
    if bias:
        made.bias = module.bias
    return made  # type: ignore[no-any-return]


def _brevitas_lstm(qnn: Any, quant: Any, module: nn.LSTM, bits: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return qnn.QuantLSTM(  # type: ignore[no-any-return]
            module.input_size, module.hidden_size, module.num_layers, weight_bit_width=bits, io_quant=quant.Int8ActPerTensorFloat, io_bit_width=bits,
            gate_acc_bit_width=8, sigmoid_bit_width=8, tanh_bit_width=8, cell_state_bit_width=8,
        )  # fmt: skip


def _put(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)


PLAIN = {"bits": "W1A1", "weights": "sign", "activations": "sign"}

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("torch fp32", copy.deepcopy),
        Variant("torch bf16", copy.deepcopy, autocast=True),
        Variant("torch fp32 compiled", copy.deepcopy, compiled=True),
        Variant("lobit W1A1 sign", lobit_net(PLAIN), masks_only=True),
        Variant("lobit W1A1", lobit_net("W1A1"), masks_only=False),
        Variant("lobit W2A2", lobit_net("W2A2"), masks_only=False),
        Variant("lobit W4A4", lobit_net("W4A4"), masks_only=False),
        Variant("lobit W2A2 DoReFa", lobit_net({"bits": "W2A2", "weights": "dorefa", "activations": "dorefa"}), masks_only=True),
        Variant("lobit W2A2 bf16", lobit_net("W2A2"), autocast=True, masks_only=False),
        Variant("lobit W2A2 compiled", lobit_net("W2A2"), compiled=True, masks_only=False),
        Variant("brevitas W1A1", brevitas_net(1)),
        Variant("brevitas W2A2", brevitas_net(2)),
    )
}


def make_step(variant: Variant, net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """One training step with the fastest Adam: forward, backward, update, and lobit's clipping of latent weights."""
    from lobit import optim

    model = variant.convert(net).train()
    quantized = variant.name.startswith("lobit")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss = nn.CrossEntropyLoss()
    with torch.no_grad():
        model(x)  # quantizers take their first step; so that what is compiled does not
    run = torch.compile(model, fullgraph=True) if variant.compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.autocast):
            value = loss(run(x).float(), labels)
        value.backward()
        optimizer.step()
        if quantized:
            optim.clip_latent_weights(model)

    return step
