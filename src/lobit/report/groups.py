"""Layers with a scale for each group of inputs, which no packed network has yet, so that a summary can count them all the same."""

from __future__ import annotations

from torch import Tensor, nn

from lobit.bits import CodeType
from lobit.nn import Linear
from lobit.quantizers import GroupedWeights, Quantized, WeightQuantizer

FLOAT_BYTES = 4


class _FirstScale(WeightQuantizer):
    """The codes of a grouped quantizer with the scale of the first group of each output: a layer of the same cost but for the scales."""

    def __init__(self, grouped: GroupedWeights) -> None:
        super().__init__()
        self.grouped = grouped

    @property
    def code_type(self) -> CodeType:
        return self.grouped.code_type

    def forward(self, x: Tensor) -> Quantized:
        made: Quantized = self.grouped(x)
        return made._replace(scale=made.scale[:, :1])


def without_groups_(model: nn.Module) -> dict[str, int]:
    """Give each layer with groups one scale for each output, in place; the bytes of the scales that this leaves out, by path."""
    left_out = {}
    for path, layer in model.named_modules():
        grouped = layer.weight_quantizer if isinstance(layer, Linear) else None
        if isinstance(grouped, GroupedWeights) and isinstance(layer, Linear):
            layer.weight_quantizer = _FirstScale(grouped)
            layer.train(layer.training)  # drops codes that it keeps in eval
            left_out[path] = FLOAT_BYTES * layer.out_features * (-(-layer.in_features // grouped.group) - 1)
    return left_out
