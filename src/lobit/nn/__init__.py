"""Layers: torch.nn's with quantizers, and the few whose eval must give the same floats everywhere."""

from lobit.extras import require

require("lobit.nn", "torch")

from torch.nn import Flatten, Hardtanh, MaxPool2d, PReLU, ReLU

from lobit.nn.activations import RPReLU
from lobit.nn.attention import MultiheadAttention
from lobit.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from lobit.nn.conv import Conv1d, Conv2d, Conv3d
from lobit.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from lobit.nn.embedding import Embedding
from lobit.nn.linear import Linear
from lobit.nn.loss import SquaredHingeLoss
from lobit.nn.matching import match_batch_norm
from lobit.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool2d,
)
from lobit.nn.quantized import QuantizedLayer
from lobit.nn.recurrent import GRU, LSTM, RNN, RecurrentLayer
from lobit.nn.recurrent_cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from lobit.nn.recurrent_quantizers import quantized_weights
from lobit.nn.reestimation import reestimate_batch_norm
from lobit.nn.resize import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d
from lobit.nn.several_products import QuantizedWeight
from lobit.nn.shiftnorm import ShiftBatchNorm1d, ShiftBatchNorm2d
from lobit.nn.transformer import TransformerEncoderLayer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAvgPool2d",
    "Hardtanh",
    "LSTMCell",
    "Linear",
    "MaxPool2d",
    "MultiheadAttention",
    "PReLU",
    "QuantizedLayer",
    "QuantizedWeight",
    "RNNCell",
    "RPReLU",
    "ReLU",
    "RecurrentCell",
    "RecurrentLayer",
    "ShiftBatchNorm1d",
    "ShiftBatchNorm2d",
    "SquaredHingeLoss",
    "TransformerEncoderLayer",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "match_batch_norm",
    "quantized_weights",
    "reestimate_batch_norm",
]
