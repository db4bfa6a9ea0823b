"""Layers that train and evaluate but have no place in a packed network: each is refused by name, with what there is instead."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from lobit import nn as lnn
from lobit.errors import ExportError

_VOLUME = "values have at most two axes behind the channels; use the layer of one or two axes, or keep this part outside the exported model"
_TRANSPOSED = "convolutions are Conv1d and Conv2d, not transposed; enlarge the image outside the exported model, or make more channels of it in a convolution"
_LOOKUP = "inputs are float32, not indices; look rows up outside the exported model and give it what they hold"
_RECURRENT = "recurrent layers do not export yet; a packed file holds no operator that keeps a state from step to step. Run the model in PyTorch, where its eval is exact"
_ATTENTION = "attention multiplies two computed values, for which a packed file holds no operator yet; run the model in PyTorch, or export the part without attention"
REFUSED: dict[str, str] = {
    "Conv3d": _VOLUME,
    "BatchNorm3d": _VOLUME,
    "AvgPool3d": _VOLUME,
    "AdaptiveAvgPool3d": _VOLUME,
    "ConvTranspose1d": _TRANSPOSED,
    "ConvTranspose2d": _TRANSPOSED,
    "ConvTranspose3d": _TRANSPOSED,
    "Embedding": _LOOKUP,
    **dict.fromkeys(("MultiheadAttention", "TransformerEncoderLayer"), _ATTENTION),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), _RECURRENT),
}
"""Why, by the name of the class in torch.nn and lobit.nn."""
_CLASSES = {getattr(package, name): why for name, why in REFUSED.items() for package in (nn, lnn)}


def why_refused(layer: nn.Module) -> str:
    """Why a layer cannot be exported; empty for others, and for subclasses, which may do something else."""
    return _CLASSES.get(type(layer), "")


def refuse(path: str, layer: nn.Module, *args: Any, **kwargs: Any) -> NoReturn:
    """Stand for the forward of a layer that cannot be exported.

    Raises
    ------
    ExportError
        Always, with the layer's path.
    """
    raise ExportError(f"layer {path!r} ({type(layer).__name__}) has no place in a packed network: {why_refused(layer)}")
