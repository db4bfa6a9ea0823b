"""Quantizers: pure functions that make integer codes with a pseudo-gradient, and thin modules that hold their settings."""

from lobit.extras import require

require("lobit.quantizers", "torch")

from lobit.quantizers.affine import AffineActivations, AffineWeights, affine
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
from lobit.quantizers.groups import GroupedWeights
from lobit.quantizers.heaviside import Heaviside, HeavisideWeights, heaviside
from lobit.quantizers.learned_bits import LearnedBits, LearnedBitsWeights
from lobit.quantizers.learned_range import LearnsBits, learned_bits
from lobit.quantizers.linear import LinearQuant, LinearQuantWeights, linear_quant
from lobit.quantizers.log import LogQuant, LogQuantWeights, log_quant
from lobit.quantizers.lsq import LSQ, LSQWeights, lsq
from lobit.quantizers.lsqplus import LSQPlus, lsq_plus
from lobit.quantizers.magnitude_sign import MagnitudeSign, scaled_sign, xnor_sign
from lobit.quantizers.observer import Observer, Sample
from lobit.quantizers.pact import PACT, pact, pact_penalty
from lobit.quantizers.powers import ap2, power_of_two
from lobit.quantizers.progressive import Progressive, ProgressiveSign, ProgressiveSignWeights, progressive_sign
from lobit.quantizers.ranges import Fit, Grid, Method, MinMax, Percentile
from lobit.quantizers.registry import get, names, register
from lobit.quantizers.rsign import RSign, rsign
from lobit.quantizers.search import MeanSquaredError
from lobit.quantizers.sign import (
    ApproxSign,
    ApproxSignWeights,
    IdentitySign,
    Sign,
    SignWeights,
    StochasticSign,
    StochasticSignWeights,
    SwishSign,
    SwishSignWeights,
    sign,
    stochastic_sign,
)
from lobit.quantizers.straight_through import round_by_step, round_in_range, straight_through
from lobit.quantizers.ternary import StochasticTernary, StochasticTernaryWeights, TernaryWeights, stochastic_ternary, ternary
from lobit.quantizers.ttq import TTQWeights, ttq

__all__ = [
    "LSQ",
    "PACT",
    "ActivationQuantizer",
    "AffineActivations",
    "AffineWeights",
    "ApproxSign",
    "ApproxSignWeights",
    "CodeDropout",
    "DoReFaActivations",
    "DoReFaGradients",
    "DoReFaWeights",
    "Fit",
    "FromData",
    "FromWeights",
    "GradientQuantizer",
    "Grid",
    "GroupedWeights",
    "Heaviside",
    "HeavisideWeights",
    "IdentitySign",
    "LSQPlus",
    "LSQWeights",
    "LearnedBits",
    "LearnedBitsWeights",
    "LearnsBits",
    "LinearGradients",
    "LinearQuant",
    "LinearQuantWeights",
    "LogGradients",
    "LogQuant",
    "LogQuantWeights",
    "MagnitudeSign",
    "MeanSquaredError",
    "Method",
    "MinMax",
    "Observer",
    "Percentile",
    "Progressive",
    "ProgressiveSign",
    "ProgressiveSignWeights",
    "Quantized",
    "Quantizer",
    "RSign",
    "Sample",
    "Sign",
    "SignWeights",
    "StochasticSign",
    "StochasticSignWeights",
    "StochasticTernary",
    "StochasticTernaryWeights",
    "SwishSign",
    "SwishSignWeights",
    "TTQWeights",
    "TernaryWeights",
    "WeightQuantizer",
    "affine",
    "ap2",
    "calibrate",
    "calibrating",
    "dorefa_activations",
    "dorefa_gradients",
    "dorefa_weights",
    "get",
    "heaviside",
    "learned_bits",
    "linear_gradients",
    "linear_quant",
    "log_gradients",
    "log_quant",
    "lsq",
    "lsq_plus",
    "names",
    "pact",
    "pact_penalty",
    "power_of_two",
    "progressive_sign",
    "register",
    "round_by_step",
    "round_in_range",
    "rsign",
    "scaled_sign",
    "sign",
    "stochastic_sign",
    "stochastic_ternary",
    "straight_through",
    "ternary",
    "ttq",
    "xnor_sign",
]
