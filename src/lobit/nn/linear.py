"""The linear layer."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lobit.nn.quantized import QuantizedLayer
from lobit.nn.scaled_product import Map
from lobit.quantizers import get
from lobit.quantizers.registry import Identifier


class Linear(QuantizedLayer, nn.Linear):
    """`torch.nn.Linear` with quantized weights and input; without quantizers it is torch's layer.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them.
    **kwargs
        ``device`` and ``dtype``.

    Examples
    --------
    >>> Linear(64, 10, weight_quantizer="sign", input_quantizer={"name": "lsq", "bits": 2}).weight.shape
    torch.Size([10, 64])
    """

    takes_groups = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, **kwargs)
        self.set_quantizers(get(weight_quantizer, "weights"), get(input_quantizer, "activations"), get(gradient_quantizer, "gradients"))

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """``x @ weight.T``."""
        return F.linear(x, weight)

    def linear_map(self, x: Tensor) -> Map:
        """A linear map."""
        return "linear"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Map input of shape (N, .., in_features) to (N, .., out_features)."""
        return self.quantized_forward(input) if self.is_quantized else nn.Linear.forward(self, input)
