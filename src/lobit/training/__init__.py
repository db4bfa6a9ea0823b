"""Training from recipes, on Lightning; and its aids, each usable in a loop of one's own: schedules of bits, distillation, flips, guards."""

from lobit.extras import require

require("lobit.training", "torch", "lightning", "tensorboard", "rich", "yaml", "pydantic")

from lobit.training.bit_budget import BitBudget, freeze_bits
from lobit.training.checkpoints import build_model, load_model
from lobit.training.distillation import Distillation, distillation_loss
from lobit.training.flips import FlipRatio
from lobit.training.guards import Starved, all_finite, check_finite
from lobit.training.memory import keep_freed_memory
from lobit.training.module import accuracy, predict
from lobit.training.run import TrainResult, load_test_set, train
from lobit.training.schedules import QuantizationSchedule, sharpen

__all__ = [
    "BitBudget",
    "Distillation",
    "FlipRatio",
    "QuantizationSchedule",
    "Starved",
    "TrainResult",
    "accuracy",
    "all_finite",
    "build_model",
    "check_finite",
    "distillation_loss",
    "freeze_bits",
    "keep_freed_memory",
    "load_model",
    "load_test_set",
    "predict",
    "sharpen",
    "train",
]
