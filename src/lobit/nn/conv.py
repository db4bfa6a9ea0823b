"""The two-dimensional convolution."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.quantized import QuantizedLayer
from lobit.nn.scaled_product import Convolution, Map
from lobit.quantizers import ActivationQuantizer, GradientQuantizer, WeightQuantizer, get
from lobit.quantizers.registry import Identifier


class Conv2d(QuantizedLayer, nn.Conv2d):
    """`torch.nn.Conv2d` with quantized weights and input; without quantizers it is torch's layer.

    Padding is with real 0, as torch's, whether or not 0 is a code of the input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them.
    **kwargs
        ``padding_mode``, ``device`` and ``dtype``; quantized layers pad with zeros only.

    Raises
    ------
    ConfigError
        For another padding mode together with a quantizer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **kwargs)
        self.set_quantizers(get(weight_quantizer, "weights"), get(input_quantizer, "activations"), get(gradient_quantizer, "gradients"))

    def set_quantizers(
        self,
        weight_quantizer: WeightQuantizer | None,
        input_quantizer: ActivationQuantizer | None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        """Attach quantizers; None leaves that side in float."""
        if self.padding_mode != "zeros" and (weight_quantizer or input_quantizer):
            raise ConfigError(f"a quantized convolution pads with zeros, not {self.padding_mode!r}; pad in a layer of its own before it")
        super().set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution without a bias."""
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def linear_map(self, x: Tensor) -> Map | None:
        """The convolution, of a batch and with the same padding on both sides."""
        padding = self.padding
        if isinstance(padding, str):
            total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            if any(size % 2 for size in total):
                return None
            padding = tuple(size // 2 for size in total)
        return Convolution(self.stride, padding, self.dilation, self.groups) if x.ndim == self.weight.ndim else None

    def per_channel(self, values: Tensor) -> Tensor:
        """Outputs are the third axis from the end."""
        return values if values.numel() == 1 and self.out_channels != 1 else values.reshape(-1, 1, 1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Map input of shape (N, C, H, W) to (N, O, H', W')."""
        return self.quantized_forward(input) if self.is_quantized else nn.Conv2d.forward(self, input)
