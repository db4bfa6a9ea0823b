"""Language models: the next word's logits from the words before."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lobit import nn as lnn
from lobit.bits import FLOAT_BITS, Bits
from lobit.models.registry import register


class LanguageModel(nn.Module):
    """An embedding, an LSTM, and a linear layer to the logits of all words.

    Weights of the LSTM and of the last layer, their inputs and the hidden states have the given bits: LSQ, one-bit weights the sign times the mean magnitude. The
    embedding stays float; the LSTM's first layer quantizes what it gives.

    Parameters
    ----------
    bits : Bits
    words : int
        Size of the vocabulary.
    units : int
        Of the embedding and of each layer.
    layers : int
    dropout : float
        Of the embedding, between layers and before the last one.
    """

    def __init__(self, bits: Bits, words: int, units: int, layers: int, dropout: float) -> None:
        super().__init__()
        settings: dict[str, Any] = {}
        if bits.weights != FLOAT_BITS:
            settings["weight_quantizer"] = {"name": "magnitude_sign" if bits.weights == 1 else "lsq", "bits": bits.weights}
        if bits.activations != FLOAT_BITS:
            settings["input_quantizer"] = {"name": "lsq", "bits": bits.activations}
        self.dropout = dropout
        self.embedding = nn.Embedding(words, units)
        self.lstm = lnn.LSTM(units, units, layers, dropout=dropout if layers > 1 else 0.0, **settings)
        self.last = lnn.Linear(units, words, **settings)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, words: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits of shape (T, B, words) and the last state, from int64 word numbers of shape (T, B) and a state, zeros by default."""
        x = F.dropout(self.embedding(words), self.dropout, self.training)
        hidden, state = self.lstm(x, state)
        return self.last(F.dropout(hidden, self.dropout, self.training)), state


@register(
    "ptb-lstm",
    input_shape=(35,),
    num_classes=10000,
    kind="words",
    description="the paper's Penn Treebank net: an LSTM of 300 units over 10000 words",
)
def ptb_lstm(bits: Bits, *, words: int = 10000, units: int = 300, layers: int = 1, dropout: float = 0.0) -> nn.Module:
    """One layer of 300 units as in the paper; ``units=650, layers=2, dropout=0.5`` is the medium net of Zaremba et al., arXiv 1409.2329."""
    return LanguageModel(bits, words, units, layers, dropout)
