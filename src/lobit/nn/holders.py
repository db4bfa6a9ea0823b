"""Which layer holds an activation quantizer: one with a state of its own serves one place."""

from __future__ import annotations

import weakref

from torch import nn

from lobit.errors import ConfigError
from lobit.quantizers import ActivationQuantizer, CodeDropout

_held: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[nn.Module], str, str]] = weakref.WeakKeyDictionary()
"""The layer, the place in it, and its name. Beside the quantizers, not in them: a copy of a quantizer is free, and so is one whose layer is gone."""


def hold(quantizer: ActivationQuantizer, layer: nn.Module, owner: str, place: str = "") -> None:
    """Note that a quantizer belongs to a place in a layer; one without a state, such as a sign, may serve many.

    Raises
    ------
    ConfigError
        When it has a state, such as a learned step, and another place holds it: both would move the one step.
    """
    while isinstance(quantizer, CodeDropout):
        quantizer = quantizer.quantizer
    if not quantizer.state_dict():
        return
    holder, where, name = _held.get(quantizer, (None, "", ""))
    held_by = None if holder is None else holder()
    if held_by is not None and (held_by is not layer or where != place):
        raise ConfigError(
            f"this quantizer of activations holds the state of {name}; give each layer a quantizer of its own: a name, a dict, or a callable that "
            "makes a new one each time"
        )
    _held[quantizer] = (weakref.ref(layer), place, owner)
