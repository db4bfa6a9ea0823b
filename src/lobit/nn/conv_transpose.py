"""Transposed convolutions of one to three axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ShapeError
from lobit.nn.conv import Size, check_padding_mode
from lobit.nn.integer_convolution import Convolution
from lobit.nn.quantized import QuantizedLayer
from lobit.nn.scaled_product import Map, swapped
from lobit.quantizers import ActivationQuantizer, GradientQuantizer, WeightQuantizer, get
from lobit.quantizers.registry import Identifier


class ConvTransposeLayer(QuantizedLayer):
    """What transposed convolutions share, mixed into one of torch's. Their weights lie as ``(I, O / groups, ..)``."""

    convolve: ClassVar[Callable[..., Tensor]]
    kernel_size: Any
    stride: Any
    padding: Any
    output_padding: Any
    dilation: Any
    groups: Any
    padding_mode: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, **kwargs)
        self.set_quantizers(get(weight_quantizer, "weights"), get(input_quantizer, "activations"), get(gradient_quantizer, "gradients"))

    def set_quantizers(
        self,
        weight_quantizer: WeightQuantizer | None,
        input_quantizer: ActivationQuantizer | None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        """Attach quantizers; None leaves that side in float."""
        check_padding_mode(self.padding_mode, weight_quantizer, input_quantizer, gradient_quantizer)
        super().set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer)

    def rows(self, weight: Tensor) -> Tensor:
        """``(I, O / groups, ..)`` as ``(O, I / groups, ..)``."""
        return swapped(weight, self.groups)

    def product(self, x: Tensor, weight: Tensor, output_padding: Sequence[int] | None = None) -> Tensor:
        """The transposed convolution without a bias, by weights of shape ``(O, I / groups, ..)``."""
        extra = self.output_padding if output_padding is None else output_padding
        rows = swapped(weight, self.groups)
        return type(self).convolve(x, rows, None, self.stride, self.padding, extra, self.groups, self.dilation)

    def linear_map(self, x: Tensor) -> Map | None:
        """The transposed convolution, of a batch."""
        if x.ndim != self.weight.ndim:
            return None
        return Convolution(self.stride, self.padding, self.dilation, self.groups, True, self.output_padding)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Map input of shape (N, C, ..), or (C, ..), to the output of ``output_size``, by default that of ``output_padding``."""
        if not self.is_quantized:
            return super().forward(input, output_size)  # type: ignore[no-any-return]
        axes = len(self.kernel_size)
        if input.ndim == axes + 1:  # to quantizers the first axis is that of samples
            return self.forward(input[None], None if output_size is None else output_size[-axes:])[0]
        if output_size is None:
            return self.quantized_forward(input)
        return self.quantized_forward(input, partial(self.product, output_padding=self.padding_for(input, output_size)))

    def padding_for(self, x: Tensor, output_size: Sequence[int]) -> list[int]:
        """The output padding that gives an output of this size.

        Raises
        ------
        ShapeError
            For a size that the layer cannot make.
        """
        axes = len(self.kernel_size)
        geometry = zip(x.shape[-axes:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        least = [(size - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1 for size, kernel, stride, pad, dilation in geometry]
        wanted = list(output_size)[-axes:]
        extra = [want - low for want, low in zip(wanted, least, strict=False)]
        if len(output_size) not in (axes, x.ndim) or any(not 0 <= more < stride for more, stride in zip(extra, self.stride, strict=False)):
            most = [low + stride - 1 for low, stride in zip(least, self.stride, strict=True)]
            raise ShapeError(f"output_size is {tuple(output_size)}; for an input of shape {tuple(x.shape)} it may be {least} to {most}")
        return extra


class ConvTranspose1d(ConvTransposeLayer, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with quantizers, from (N, C, L) to (N, O, L'); see `ConvTranspose2d`.

    Examples
    --------
    >>> import torch
    >>> ConvTranspose1d(8, 4, 4, stride=2, weight_quantizer="magnitude_sign", input_quantizer="sign")(torch.randn(2, 8, 5)).shape
    torch.Size([2, 4, 12])
    """

    channel_axis = -2
    convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(ConvTransposeLayer, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with quantized weights and input, from (N, C, H, W) to (N, O, H', W'); without quantizers it is torch's layer.

    Weight quantizers see output channels first, whatever the groups, so that one scale for each output channel is what it says. It trains and
    evaluates exactly; packed files have no place for it.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As torch's.
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them.
    **kwargs
        ``padding_mode``, ``device`` and ``dtype``.

    Examples
    --------
    >>> import torch
    >>> layer = ConvTranspose2d(8, 4, 2, stride=2, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 8})
    >>> layer(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 4, 10, 10])
    >>> layer.weight_quantizer.step.shape
    torch.Size([4, 1, 1, 1])
    """

    channel_axis = -3
    convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(ConvTransposeLayer, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with quantizers, from (N, C, D, H, W) to (N, O, D', H', W'); see `ConvTranspose2d`.

    Examples
    --------
    >>> import torch
    >>> ConvTranspose3d(2, 3, 2, weight_quantizer="sign", input_quantizer="sign")(torch.randn(1, 2, 2, 2, 2)).shape
    torch.Size([1, 3, 3, 3, 3])
    """

    channel_axis = -4
    convolve = staticmethod(F.conv_transpose3d)
