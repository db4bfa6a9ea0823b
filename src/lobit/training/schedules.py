"""Quantizers that change in the course of training: a delay in float, more bits at first, gradients that sharpen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lobit.bits import FLOAT_BITS, Bits
from lobit.errors import ConfigError
from lobit.nn import QuantizedLayer
from lobit.nn.several_products import SeveralProducts
from lobit.quantizers import Progressive, Quantizer

FLOAT = "float"


class QuantizationSchedule:
    """Widths by time: until when quantizers have at least so many bits, or are off; at last the model's own bits.

    Time is what you count: epochs, or steps. From ``t`` on `advance(t)` sets the widths of the first entry whose time is above ``t``; after the last entry
    every quantizer has its own width. A quantizer that is wider than the entry says stays as it is, so that a first layer of 8 bits keeps them. A width of
    32, or ``"float"`` for all, switches quantizers off: layers compute on floats, latent weights are still clipped, and the gates of recurrent layers stay on
    their grid. Learned steps start anew from the weights, or from the next batch, whenever the width changes, in the same parameters, so the optimizer
    stays.

    Parameters
    ----------
    model : nn.Module
        With its final quantizers.
    until : mapping of int to str or Bits
        From a time, above 0, to the widths up to it: ``{2: "float", 4: "W8A8", 8: "W4A4"}``. What a text leaves out is float: ``"W8"`` has float activations.

    Raises
    ------
    ConfigError
        For a time that is no whole number above 0, or a width that a quantizer of the model, or the layer it belongs to, cannot have; it names the quantizer.

    Notes
    -----
    A checkpoint needs `state_dict` beside the model's, and loads it first, as widths decide which state of the model fits. Gradient quantizers follow
    ``G``. A data-parallel run calls `advance` in every process.

    Examples
    --------
    >>> import lobit
    >>> model = nn.Sequential(lobit.nn.Linear(4, 3, weight_quantizer={"name": "linear", "bits": 2}))
    >>> schedule = QuantizationSchedule(model, {1: "float", 3: "W8A8"})
    >>> for epoch in range(4):
    ...     schedule.advance(epoch), model[0].weight_quantizer.off, model[0].weight_quantizer.code_type.bits
    (True, True, 2)
    (True, False, 8)
    (False, False, 8)
    (True, False, 2)
    """

    def __init__(self, model: nn.Module, until: Mapping[int, str | Bits]) -> None:
        self.until = check_schedule(until)
        self._model = model
        self._quantizers = dict(_outermost(model))
        self._own = {path: _width(quantizer) for path, quantizer in self._quantizers.items()}
        self._now = dict(self._own)
        if not self._quantizers:
            raise ConfigError("a schedule changes quantizers, and the model has none; quantize it first (model.bits in a recipe)")
        self.time = 0
        self._refuse()

    @property
    def finished(self) -> bool:
        """Whether every quantizer has the model's own width."""
        return self._now == self._own

    @property
    def end(self) -> int:
        """The time from which on every quantizer has its own width; 0 for an empty schedule."""
        return max(self.until, default=0)

    def advance(self, time: int) -> bool:
        """Set the widths of a time, in the unit of the schedule; whether any has changed."""
        if not isinstance(time, int):
            raise ConfigError(f"the time of a schedule is a whole number, not {time!r}")
        self.time = time
        wanted = {path: self._wanted(time, path) for path in self._quantizers}
        changed = [path for path, width in wanted.items() if width != self._now[path]]
        for path in changed:
            self._set(self._quantizers[path], wanted[path])
        self._now = wanted
        if changed:
            for layer in self._model.modules():
                if isinstance(layer, (QuantizedLayer, SeveralProducts)):
                    layer.train(layer.training)  # drops codes that it keeps in eval
        return bool(changed)

    def state_dict(self) -> dict[str, int]:
        """The time that was set last."""
        return {"time": self.time}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Set the widths of a stored time; load the model's state afterwards."""
        if "time" not in state:
            raise ConfigError(f"the state of a schedule is {{'time': ..}}, not {dict(state)!r}")
        self.advance(int(state["time"]))

    def _wanted(self, time: int, path: str) -> int:
        bits = next((bits for end, bits in self.until.items() if time < end), None)
        own = self._own[path]
        return own if bits is None else max(own, getattr(bits, self._quantizers[path].role))

    @staticmethod
    def _set(quantizer: Quantizer, width: int) -> None:
        was_off, quantizer.off = quantizer.off, width == FLOAT_BITS
        if quantizer.off:
            return
        if _width(quantizer) != width:
            quantizer.set_bits(width)
        elif was_off:
            quantizer.reset()

    def _refuse(self) -> None:
        """Try every width on every quantizer now, not in an epoch to come; nothing changes."""
        layers = [layer for layer in self._model.modules() if isinstance(layer, QuantizedLayer)]
        for path, quantizer in self._quantizers.items():
            widths = {self._wanted(end - 1, path) for end in self.until} - {FLOAT_BITS, self._own[path]}
            for width in sorted(widths):
                try:
                    quantizer.check_bits(width)
                    for layer in layers:
                        if layer.input_quantizer is quantizer:
                            layer.check_input_bits(width)
                except ConfigError as error:
                    raise ConfigError(f"the schedule asks for {width} bits of {path!r}: {error}") from None


def sharpen(model: nn.Module, share: float) -> None:
    """Tell every `Progressive` quantizer of a model which share of the training is done, such as ``epoch / epochs`` ahead of each epoch.

    Recipes do so by themselves. The share is a part of the model's state; a data-parallel run calls this in every process.

    Parameters
    ----------
    model : nn.Module
        With quantizers such as ``progressive_sign``.
    share : float
        From 0 to 1.

    Raises
    ------
    ConfigError
        For a share out of that range, or a model without such a quantizer.

    Examples
    --------
    >>> import lobit
    >>> layer = lobit.nn.Linear(4, 3, weight_quantizer="progressive_sign")
    >>> for epoch in range(3):
    ...     sharpen(layer, epoch / 3)
    ...     round(layer.weight_quantizer.sharpness.item(), 2)
    0.1
    0.46
    2.15
    """
    found = list(progressive(model))
    if not found:
        raise ConfigError("the model has no quantizer that sharpens; give its layers 'progressive_sign', or leave this call out")
    for quantizer in found:
        quantizer.set_progress(share)


def progressive(model: nn.Module) -> Iterator[Progressive]:
    """The quantizers of a model that change with the share of the training that is done."""
    return (module for module in model.modules() if isinstance(module, Progressive))


def check_schedule(until: Mapping[int, str | Bits]) -> dict[int, Bits]:
    """Times in order, and their widths.

    Raises
    ------
    ConfigError
        For a time that is no whole number above 0, or what is no bit setting.
    """
    for time in until:
        if type(time) is not int or time < 1:
            raise ConfigError(f"a schedule says until which whole epoch or step, from 1, widths hold; not {time!r}")
    return {time: Bits() if until[time] == FLOAT else Bits.parse(until[time]) for time in sorted(until)}


def _outermost(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Quantizers that are not part of another one."""
    inner = {id(part) for module in model.modules() if isinstance(module, Quantizer) for part in module.modules() if part is not module}
    for path, module in model.named_modules():
        if isinstance(module, Quantizer) and id(module) not in inner:
            yield path, module


def _width(quantizer: Quantizer) -> int:
    """Bits of its codes, also while the sign of its input is undecided."""
    inner = getattr(quantizer, "quantizer", quantizer)
    bits: Any = getattr(inner, "bits", None)
    return bits if isinstance(bits, int) else inner.code_type.bits
