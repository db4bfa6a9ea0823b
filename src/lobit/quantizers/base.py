"""What a quantizer is: a module that turns floats into integer codes and the scale that gives them their meaning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lobit.bits import CodeType
from lobit.errors import ConfigError, ExportError

Role = Literal["weights", "activations", "gradients"]


class Quantized(NamedTuple):
    """Codes and their meaning: ``value = scale * (codes - zero) + offset``.

    Attributes
    ----------
    codes : Tensor
        Float tensor of the input's shape that holds integers; carries the straight-through gradient.
    scale : Tensor
        float32, of shape ``()``, or ``(O, 1, ..)`` for weights with one scale per output channel; ``(O, K)`` for those of a linear layer with one per group of inputs.
    zero : int
        The code of real 0; always 0 for weights.
    offset : Tensor, optional
        float32 of shape ``()``, for activations only: a learned offset that need not be a whole number of steps. Real 0 is then no code.
    negative : Tensor, optional
        For weights of ternary codes only: the scale of code -1, of the shape of ``scale``, which then is that of +1.
    """

    codes: Tensor
    scale: Tensor
    zero: int = 0
    offset: Tensor | None = None
    negative: Tensor | None = None

    def centred(self) -> Tensor:
        """``codes - zero``: the integers that layers multiply."""
        return self.codes - self.zero if self.zero else self.codes

    def values(self) -> Tensor:
        """``scale * (codes - zero) + offset``: what the codes stand for."""
        values = self.centred() * self.scale
        if self.negative is not None:
            return torch.where(self.codes < 0, self.codes * self.negative, values)
        return values if self.offset is None else values + self.offset

    def sides(self) -> tuple[Quantized, ...]:
        """Itself; with a scale of its own for -1 the codes +1, and the codes -1 as codes 1 of a negative scale. The sum of their values is its own."""
        if self.negative is None:
            return (self,)
        below = self.codes.detach() < 0
        return Quantized(self.codes * ~below, self.scale), Quantized(self.codes * -below.to(self.codes.dtype), -self.negative)


class Quantizer(nn.Module):
    """Base of all quantizers; use `ActivationQuantizer`, `WeightQuantizer` or `GradientQuantizer`.

    The state of a quantizer may be absent from a checkpoint, so that a checkpoint of the float model loads strictly; state that is there is loaded.

    Attributes
    ----------
    alias : str
        Its name in the registry.
    zero : int
        The code of real 0; 0 for all quantizers of this package.
    owner : str
        The layer it belongs to, for error messages; set by the layer, or by `quantize_` with the layer's path.
    off : bool
        Whether it lets floats through as they are; set by schedules that begin in float. Such a model is not exported.
    """

    role: ClassVar[Role]
    alias: ClassVar[str] = ""
    zero: int = 0
    owner: str = ""
    off: bool = False

    def __call__(self, x: Tensor) -> Quantized:
        """Quantize; while it is off, the floats themselves with scale 1."""
        if self.off:
            return self._through(x)
        found = super().__call__(x)
        if type(found) is not Quantized:
            raise ConfigError(
                f"{type(self).__name__}.forward returns a {type(found).__name__}; a quantizer returns lobit.quantizers.Quantized(codes, scale)"
            )
        return found

    @property
    def fractions(self) -> bool:
        """Whether codes are no integers: then it trains, but has no code type and cannot be exported."""
        return False

    @property
    def undecided(self) -> bool:
        """Whether it waits for a batch that holds more than zeros, and gives codes of 0 until then; it may have no `code_type` yet."""
        return False

    @property
    def code_type(self) -> CodeType:
        """The type of its codes.

        Raises
        ------
        ConfigError
            For an activation quantizer that has not yet seen whether its input is non-negative.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Quantized:
        """Quantize a float tensor."""
        raise NotImplementedError

    def keep_in_range(self) -> None:
        """Put learned state that the optimizer moved out of its range back; called after every step."""

    def set_bits(self, bits: int) -> None:
        """Change the width; learned state starts anew, from the weights or the next batch.

        It checks the width, stores it as ``bits`` and calls `reset`. A class says with `check_bits` that its width may change, and makes in `reset`
        whatever it keeps that depends on ``bits``; so does a subclass of a class that says so.

        Raises
        ------
        ConfigError
            For a width it cannot have, or a class whose width does not change.
        """
        self.check_bits(bits)
        self.bits = bits
        width = self._buffers.get("width")
        if width is not None:
            width.fill_(bits)
        self.reset()

    def check_bits(self, bits: int) -> None:
        """Refuse a width that it cannot have with its settings, see `set_bits`.

        Here every width is refused. A class whose width may change has its own, which raises `ConfigError` for widths out of its range.
        """
        if "bits" not in inspect.signature(type(self)).parameters or not hasattr(self, "bits"):
            raise ConfigError(
                f"quantizer {self.alias!r} has one width and cannot change to {bits!r} bits; take one with a width, such as 'lsq' or 'linear', or "
                "switch it off (32 bits)"
            )
        raise ConfigError(
            f"{type(self).__name__} does not say that its width may change to {bits!r} bits: implement check_bits(bits), which raises ConfigError for a "
            "width that it cannot have, and reset(), which makes anew what it keeps that depends on bits; or switch it off (32 bits)"
        )

    def _through(self, x: Tensor) -> Quantized:
        return Quantized(x, self._scale_of_none(x))

    def _scale_of_none(self, x: Tensor) -> Tensor:
        """1, of a pass in which no parameter of the quantizer counts."""
        scale = constant(1.0, x)
        if self.training and in_group():  # data-parallel training waits for every parameter's gradient
            for parameter in self.parameters():
                scale = scale + 0 * parameter.sum() if parameter.requires_grad else scale
        return scale

    def extra_repr(self) -> str:
        """The code type, for printing."""
        try:
            return str(self.code_type)
        except ConfigError:
            return "sign undecided"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            stored, width = state_dict.get(f"{prefix}width"), self._buffers.get("width")
            if isinstance(stored, Tensor) and width is not None and int(stored) != int(width):
                args[-1].append(f"the state of {prefix.rstrip('.')!r} is of {int(stored)} bits, this quantizer has {int(width)}")
                return
            super()._load_from_state_dict(state_dict, prefix, *args)
            self._after_load()

    def _after_load(self) -> None:
        """Called when state was loaded."""

    def reset(self) -> None:
        """Forget state that came from former weights or data; layers call it when weights are loaded without quantizer state."""


class ActivationQuantizer(Quantizer):
    """Quantizes a layer's input, with one scale for the whole tensor.

    Attributes
    ----------
    calibrating : bool
        Whether it may take its state from the next batch in eval mode too; see `calibrating`.
    """

    role = "activations"
    calibrating: bool = False

    @property
    def observes(self) -> bool:
        """Whether it passes its input on as it is, for `lobit.calibrate` to observe: ``codes = x``, ``scale = 1``."""
        return False

    def attach(self, shape: tuple[int, ...], device: torch.device | None = None) -> None:
        """Make room for state of each input channel; layers call it once.

        Parameters
        ----------
        shape : tuple of int
            Of a tensor with a value for each channel that broadcasts over the input: ``(C,)``, or ``(C, 1, 1)`` for images.
        device : torch.device, optional
            Where the layer is.
        """

    def slope_in_scale(self, x: Tensor, scale: Tensor) -> Tensor | None:
        """``d codes / d scale``, of x's shape, where the codes of ``x`` depend on nothing else that learns; None where a layer is to use autograd.

        Convolutions of an input that has no gradient of its own, as images have none, ask for it: see `lobit.nn.scaled_product.Tangent`.
        """
        return None

    def steps(self) -> list[tuple[str, Tensor]]:
        """The float32 operations whose rounded result is the code in eval.

        Returns
        -------
        list of (str, Tensor)
            Operations of docs/architecture.md, "The exact class", with a float32 operand of shape (1,) each, or (C,) with one value for each input
            channel. In eval the codes are exactly ``to_codes(chain(x))``.

        Raises
        ------
        ExportError
            Where a quantizer has not said them.
        """
        raise ExportError(
            f"{type(self).__name__} has no steps(), the operations that make its codes in eval; a quantizer says them to be exported (docs/own-quantizer.md)"
        )


class WeightQuantizer(Quantizer):
    """Quantizes a layer's weights.

    Layers hand it weights of shape ``(O, ..)``, whatever their own layout is: output channels first.

    Attributes
    ----------
    latent_range : tuple of float or None
        The range that the float (latent) weights are clipped to after each step of training; None where they are free.
    two_scales : bool
        Whether its codes -1 have a scale of their own, `Quantized.negative`.
    """

    role = "weights"
    latent_range: tuple[float, float] | None = None
    two_scales: ClassVar[bool] = False

    def attach(self, weight: Tensor) -> None:
        """Make room for state that depends on the weights' shape; layers call it once."""


class GradientQuantizer(Quantizer):
    """Quantizes the gradient that comes back to the sums of a layer: ``s = product(codes_x - zero, codes_w)``.

    There, behind the scale, the gradients of both factors are products of codes: ``g_x = codes_g . codes_w`` and ``g_w = codes_g^T . codes_x``.
    The forward pass of a `GradientQuantizer` is given the gradient.

    Attributes
    ----------
    inputs_only : bool
        Whether only the gradient that flows on to the inputs is quantized; the product that makes the weights' gradient then stays in float.
    """

    role = "gradients"
    inputs_only: bool = False


def wide(x: Tensor) -> Tensor:
    """To float64, or to float32 on a device that has no float64."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def constant(value: float, like: Tensor) -> Tensor:
    """A float32 scalar on the device of ``like``."""
    return torch.full((), value, dtype=torch.float32, device=like.device)


def operand(value: float | Tensor) -> Tensor:
    """The operand of a chain step: float32, of shape (1,) or (C,), on the CPU."""
    return torch.as_tensor(value, dtype=torch.float32).detach().cpu().reshape(-1)


def in_group() -> bool:
    """Whether this process trains with others."""
    return dist.is_available() and dist.is_initialized()


def check_flag(value: bool, name: str, what: str) -> bool:
    """``value`` if it is True or False itself, else a `ConfigError`: a text such as ``"no"`` is true in Python."""
    if type(value) is not bool:
        raise ConfigError(f"{name} of {what} is True or False, not {value!r}")
    return value


def check_width(bits: int, low: int, what: str, hint: str = "") -> int:
    """``bits`` if it is an integer from ``low`` to 8, else a `ConfigError`."""
    if type(bits) is not int or not low <= bits <= 8:
        raise ConfigError(f"{what} has {low} to 8 bits, not {bits!r}{hint and '; ' + hint}")
    return bits
