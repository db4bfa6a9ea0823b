"""Layers: torch.nn's with quantizers, and the few whose eval must give the same floats everywhere."""

from lobit.extras import require

require("lobit.nn", "torch")

from torch.nn import Flatten, Hardtanh, MaxPool2d, ReLU

from lobit.nn.batchnorm import BatchNorm1d, BatchNorm2d
from lobit.nn.conv import Conv2d
from lobit.nn.linear import Linear
from lobit.nn.loss import SquaredHingeLoss
from lobit.nn.pooling import AdaptiveAvgPool2d, AvgPool2d
from lobit.nn.quantized import QuantizedLayer
from lobit.nn.recurrent import GRU, LSTM, RNN, RecurrentLayer
from lobit.nn.recurrent_cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from lobit.nn.recurrent_quantizers import QuantizedWeight, quantized_weights

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Flatten",
    "GRUCell",
    "Hardtanh",
    "LSTMCell",
    "Linear",
    "MaxPool2d",
    "QuantizedLayer",
    "QuantizedWeight",
    "RNNCell",
    "ReLU",
    "RecurrentCell",
    "RecurrentLayer",
    "SquaredHingeLoss",
    "quantized_weights",
]
