"""The weights that flips and guards look at, one entry a matrix, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from lobit.nn import QuantizedLayer
from lobit.nn.several_products import SeveralProducts
from lobit.quantizers import Quantizer, WeightQuantizer


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights of two or more axes: of a layer that has one matrix by the layer's name, else by the parameter's.

    Parameters
    ----------
    name : str
    layer : nn.Module
    parameter : str
        Its name in the layer.
    """

    name: str
    layer: nn.Module
    parameter: str

    @property
    def weight(self) -> Tensor:
        """The weights as they are now."""
        weight: Tensor = getattr(self.layer, self.parameter)
        return weight

    @property
    def quantizer(self) -> WeightQuantizer | None:
        """Their quantizer, unless there is none or it is switched off."""
        found: nn.Module | None = None
        if isinstance(self.layer, QuantizedLayer) and self.parameter == "weight":
            found = self.layer.weight_quantizer
        elif isinstance(self.layer, SeveralProducts) and self.parameter in self.layer.weight_quantizers:
            found = self.layer.weight_quantizers[self.parameter]
        return found if isinstance(found, WeightQuantizer) and not found.off else None

    def rows(self, weight: Tensor) -> Tensor:
        """Weights as the quantizer takes them, output channels first."""
        return self.layer.rows(weight) if isinstance(self.layer, QuantizedLayer) else weight

    @property
    def in_quantized_layer(self) -> bool:
        """Whether its layer has a quantizer at all."""
        return isinstance(self.layer, (QuantizedLayer, SeveralProducts)) and self.layer.is_quantized


def matrices(model: nn.Module) -> Iterator[Matrix]:
    """All matrices of a model in its order."""
    for path, layer in model.named_modules():
        if not isinstance(layer, Quantizer):
            for own, parameter in layer.named_parameters(recurse=False):
                if parameter.ndim > 1:
                    yield Matrix(path if own == "weight" else f"{path}.{own}".lstrip("."), layer, own)
