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
from lobit.nn.reestimation import reestimate_batch_norm
from lobit.nn.shiftnorm import ShiftBatchNorm1d, ShiftBatchNorm2d

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Flatten",
    "Hardtanh",
    "Linear",
    "MaxPool2d",
    "QuantizedLayer",
    "ReLU",
    "ShiftBatchNorm1d",
    "ShiftBatchNorm2d",
    "SquaredHingeLoss",
    "reestimate_batch_norm",
]
