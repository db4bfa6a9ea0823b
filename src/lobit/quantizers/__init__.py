"""Quantizers: pure functions that make integer codes with a pseudo-gradient, and thin modules that hold their settings."""

from lobit.extras import require

require("lobit.quantizers", "torch")

from lobit.quantizers.base import ActivationQuantizer, GradientQuantizer, Quantized, Quantizer, WeightQuantizer
from lobit.quantizers.calibration import calibrate, calibrating
from lobit.quantizers.dorefa import DoReFaActivations, DoReFaWeights, dorefa_activations, dorefa_weights
from lobit.quantizers.dropout import CodeDropout
from lobit.quantizers.from_data import FromData, FromWeights
from lobit.quantizers.gradients import (
    DoReFaGradients,
    LinearGradients,
    LogGradients,
    dorefa_gradients,
    linear_gradients,
    log_gradients,
)
from lobit.quantizers.linear import LinearQuant, LinearQuantWeights, linear_quant
from lobit.quantizers.lsq import LSQ, LSQWeights, lsq
from lobit.quantizers.observer import Observer, Sample
from lobit.quantizers.powers import ap2
from lobit.quantizers.ranges import Fit, Grid, Method, MinMax, Percentile
from lobit.quantizers.registry import get, names, register
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.sign import MagnitudeSign, Sign, SignWeights, StochasticSign, sign, stochastic_sign
from lobit.quantizers.straight_through import round_by_step, round_in_range, straight_through

__all__ = [
    "LSQ",
    "ActivationQuantizer",
    "CodeDropout",
    "DoReFaActivations",
    "DoReFaGradients",
    "DoReFaWeights",
    "Fit",
    "FromData",
    "FromWeights",
    "GradientQuantizer",
    "Grid",
    "LSQWeights",
    "LinearGradients",
    "LinearQuant",
    "LinearQuantWeights",
    "LogGradients",
    "MagnitudeSign",
    "MeanSquaredError",
    "Method",
    "MinMax",
    "Observer",
    "Percentile",
    "Quantized",
    "Quantizer",
    "Sample",
    "Sign",
    "SignWeights",
    "StochasticSign",
    "WeightQuantizer",
    "ap2",
    "calibrate",
    "calibrating",
    "dorefa_activations",
    "dorefa_gradients",
    "dorefa_weights",
    "get",
    "linear_gradients",
    "linear_quant",
    "log_gradients",
    "lsq",
    "names",
    "register",
    "round_by_step",
    "round_in_range",
    "sign",
    "stochastic_sign",
    "straight_through",
]
