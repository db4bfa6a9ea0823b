"""The zoo."""

from lobit.extras import require

require("lobit.models", "torch")

from lobit.models import paper, small
from lobit.models.registry import ModelInfo, create, list_models, model_info, register

__all__ = ["ModelInfo", "create", "list_models", "model_info", "paper", "register", "small"]
