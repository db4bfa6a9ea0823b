"""Quantizers: pure functions that make integer codes with a pseudo-gradient, and thin modules that hold their settings."""

from lobit.extras import require

require("lobit.quantizers", "torch")

from lobit.quantizers.base import ActivationQuantizer, GradientQuantizer, Quantized, Quantizer, WeightQuantizer
from lobit.quantizers.calibration import calibrating
from lobit.quantizers.dorefa import DoReFaActivations, DoReFaWeights, dorefa_activations, dorefa_weights
from lobit.quantizers.dropout import CodeDropout
from lobit.quantizers.linear import LinearQuant, LinearQuantWeights, linear_quant
from lobit.quantizers.lsq import LSQ, LSQWeights, lsq
from lobit.quantizers.registry import get, names, register
from lobit.quantizers.sign import MagnitudeSign, Sign, SignWeights, StochasticSign, sign, stochastic_sign
from lobit.quantizers.straight_through import round_by_step, round_in_range, straight_through

__all__ = [
    "LSQ",
    "ActivationQuantizer",
    "CodeDropout",
    "DoReFaActivations",
    "DoReFaWeights",
    "GradientQuantizer",
    "LSQWeights",
    "LinearQuant",
    "LinearQuantWeights",
    "MagnitudeSign",
    "Quantized",
    "Quantizer",
    "Sign",
    "SignWeights",
    "StochasticSign",
    "WeightQuantizer",
    "calibrating",
    "dorefa_activations",
    "dorefa_weights",
    "get",
    "linear_quant",
    "lsq",
    "names",
    "register",
    "round_by_step",
    "round_in_range",
    "sign",
    "stochastic_sign",
    "straight_through",
]
