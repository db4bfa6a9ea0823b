"""The zoo."""

from lobit.extras import require

require("lobit.models", "torch")

from lobit.models import language, paper, small
from lobit.models.language import LanguageModel
from lobit.models.registry import ModelInfo, create, list_models, model_info, register

__all__ = ["LanguageModel", "ModelInfo", "create", "language", "list_models", "model_info", "paper", "register", "small"]
