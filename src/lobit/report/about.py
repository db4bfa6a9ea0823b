"""What the file of a recipe's net says of its use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lobit.data import DataSet
from lobit.format import About

if TYPE_CHECKING:
    from lobit.recipes import Recipe

SCORES = {"cross-entropy": "logits", "squared-hinge": "margins"}
"""What a loss makes of a net's outputs."""


def about_run(recipe: Recipe, data: DataSet) -> About:
    """What a run's recipe and its data set say: scaling of pixels, names of the classes, and whether softmax makes probabilities of the outputs."""
    return About(data.name, recipe.data.low, recipe.data.high, data.white, data.classes, SCORES[recipe.loss])
