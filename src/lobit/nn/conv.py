"""Convolutions of one to three axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.integer_convolution import Convolution
from lobit.nn.quantized import QuantizedLayer
from lobit.nn.scaled_product import Map
from lobit.quantizers import ActivationQuantizer, GradientQuantizer, WeightQuantizer, get
from lobit.quantizers.registry import Identifier
from lobit.quantizers.sign import ONE_BIT

Size = int | tuple[int, ...]


class ConvLayer(QuantizedLayer):
    """What convolutions share, mixed into one of torch's; a class names its function and where outputs have their channels."""

    convolve: ClassVar[Callable[..., Tensor]]
    padding_value: int = 0
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: Any
    padding_mode: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        padding_value: int = 0,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **kwargs)
        self.padding_value = padding_value
        self.set_quantizers(get(weight_quantizer, "weights"), get(input_quantizer, "activations"), get(gradient_quantizer, "gradients"))

    def set_quantizers(
        self,
        weight_quantizer: WeightQuantizer | None,
        input_quantizer: ActivationQuantizer | None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        """Attach quantizers; None leaves that side in float."""
        check_padding_mode(self.padding_mode, weight_quantizer, input_quantizer, gradient_quantizer)
        check_padding_value(self.padding_value, input_quantizer)
        super().set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer)

    def check_input_bits(self, bits: int) -> None:
        """Refuse more than one bit where the border holds a code of one bit."""
        if self.padding_value and bits != 1:
            raise ConfigError(
                f"the layer has padding_value={self.padding_value}, a code of one-bit inputs of -1/+1, so that its input cannot have {bits} bits; "
                "switch it off (32 bits), or take padding_value=0"
            )

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution without a bias; real 0 pads it, a `padding_value` is there already."""
        padding = 0 if self.padding_value else self.padding
        return type(self).convolve(x, weight, None, self.stride, padding, self.dilation, self.groups)

    def linear_map(self, x: Tensor) -> Map | None:
        """The convolution, of a batch and with the same padding on both sides."""
        border = [(0, 0)] * len(self.kernel_size) if self.padding_value else self.border
        if x.ndim != self.weight.ndim or any(before != after for before, after in border):
            return None
        return Convolution(self.stride, tuple(pad for pad, _ in border), self.dilation, self.groups)

    def pad(self, x: Tensor) -> Tensor:
        """With a `padding_value`: ``x``, codes of one bit, in a border of that code."""
        pads = [pad for before_after in reversed(self.border) for pad in before_after]  # the last axis first
        if not self.padding_value or not any(pads):
            return x
        check_padding_value(self.padding_value, self.input_quantizer)
        return F.pad(x, pads, value=float(self.padding_value))

    @property
    def border(self) -> list[tuple[int, int]]:
        """How much padding stands before and after each axis; ``"same"`` has its odd one after."""
        if self.padding == "same":
            totals = [step * (size - 1) for step, size in zip(self.dilation, self.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        pads = (0,) * len(self.kernel_size) if self.padding == "valid" else self.padding
        return [(pad, pad) for pad in pads]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Convolve input of shape (N, C, ..), or (C, ..) without a batch axis."""
        if not self.is_quantized:
            return super().forward(input)  # type: ignore[no-any-return]
        if input.ndim == len(self.kernel_size) + 1:  # to quantizers the first axis is that of samples
            return self.quantized_forward(input[None]).squeeze(0)
        return self.quantized_forward(input)

    def extra_repr(self) -> str:
        """Torch's, and the padding value where it is not 0."""
        value = f", padding_value={self.padding_value}" if self.padding_value else ""
        return f"{super().extra_repr()}{value}"


class Conv1d(ConvLayer, nn.Conv1d):
    """`torch.nn.Conv1d` with quantizers, from (N, C, L) to (N, O, L'); parameters, padding and errors are those of `Conv2d`.

    Examples
    --------
    >>> import torch
    >>> Conv1d(8, 16, 3, padding=1, weight_quantizer="magnitude_sign", input_quantizer="sign")(torch.randn(2, 8, 20)).shape
    torch.Size([2, 16, 20])
    """

    channel_axis = -2
    convolve = staticmethod(F.conv1d)


class Conv2d(ConvLayer, nn.Conv2d):
    """`torch.nn.Conv2d` with quantized weights and input, from (N, C, H, W) to (N, O, H', W'); without quantizers it is torch's layer.

    Padding is with real 0, as torch's, whether or not 0 is a code of the input. One-bit inputs of -1/+1 may be padded with a code instead, which
    needs no correction where the sum is counted in bits.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As torch's. ``groups=in_channels`` is the depthwise convolution, its scales are per output channel as everywhere.
    padding_value : {0, 1, -1}
        0 is real 0. +1 and -1 are codes: the border then holds the value ``scale * padding_value``, and counts in gradients of weights. They
        exist for inputs of one-bit odd codes alone, in training and eval, since with more levels neither end of the range is a neutral border.
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them.
    **kwargs
        ``padding_mode``, ``device`` and ``dtype``; quantized layers pad with constants only.

    Raises
    ------
    ConfigError
        For another padding mode together with a quantizer; for a padding value that is none of the three, or is not 0 and the input is not known to
        have codes -1/+1.

    Examples
    --------
    >>> import torch
    >>> layer = Conv2d(8, 16, 3, padding=1, padding_value=1, weight_quantizer="sign", input_quantizer="sign")
    >>> layer(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 16, 5, 5])
    """

    channel_axis = -3
    convolve = staticmethod(F.conv2d)


class Conv3d(ConvLayer, nn.Conv3d):
    """`torch.nn.Conv3d` with quantizers, from (N, C, D, H, W) to (N, O, D', H', W'); parameters, padding and errors are those of `Conv2d`.

    It trains and evaluates exactly; packed files have no place for it.

    Examples
    --------
    >>> import torch
    >>> Conv3d(3, 4, (1, 3, 3), weight_quantizer={"name": "lsq", "bits": 4})(torch.randn(2, 3, 4, 8, 8)).shape
    torch.Size([2, 4, 4, 6, 6])
    """

    channel_axis = -4
    convolve = staticmethod(F.conv3d)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution without a bias.

        A tensor of one channel is contiguous and channels-last at once, and its strides may say either. Where they say channels-last, `torch.nn.functional.conv3d`
        of PyTorch 2.13 leaves part of its output unset on some CPUs; so they are made to say the other.
        """
        if self.in_channels > 1:
            return super().product(x, weight)
        return super().product(*(tensor.reshape(-1).reshape(tensor.shape) for tensor in (x, weight)))

    def linear_map(self, x: Tensor) -> Map | None:
        """The convolution; of one channel `product` alone."""
        return super().linear_map(x) if self.in_channels > 1 else None


def check_padding_mode(mode: str, *quantizers: nn.Module | None) -> None:
    """Refuse quantizers on a convolution that pads with its own input.

    Raises
    ------
    ConfigError
        For a quantizer with a padding mode other than ``"zeros"``.
    """
    if mode != "zeros" and any(quantizer is not None for quantizer in quantizers):
        raise ConfigError(f"a quantized convolution pads with zeros, not {mode!r}; pad in a layer of its own before it")


def check_padding_value(value: int, quantizer: ActivationQuantizer | None) -> None:
    """Refuse a padding value that is no code of the input.

    Raises
    ------
    ConfigError
        For a value other than 0, 1 and -1; for 1 and -1 unless the input's codes are -1/+1.
    """
    if type(value) is not int or value not in (0, 1, -1):
        raise ConfigError(f"padding_value is {value!r}; it must be 0, 1 or -1")
    if not value:
        return
    try:
        found = "float" if quantizer is None else str(quantizer.code_type)
    except ConfigError:
        found = "codes whose sign is undecided"
    if found != str(ONE_BIT):
        raise ConfigError(
            f"padding_value={value} is a code of one-bit inputs of -1/+1, and the input is {found}; use input_quantizer='sign', "
            "or {'name': 'lsq', 'bits': 1, 'nonnegative': False}, or padding_value=0"
        )
