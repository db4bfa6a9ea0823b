"""Training from recipes, on Lightning."""

from lobit.extras import require

require("lobit.training", "torch", "lightning", "tensorboard", "rich", "yaml", "pydantic")

from lobit.training.checkpoints import build_model, load_model
from lobit.training.module import accuracy, predict
from lobit.training.run import TrainResult, load_test_set, train

__all__ = ["TrainResult", "accuracy", "build_model", "load_model", "load_test_set", "predict", "train"]
