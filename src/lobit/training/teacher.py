"""The teacher of a recipe: the net of another run, on this run's inputs."""

from __future__ import annotations

from torch import Tensor, nn

from lobit.data import DataSet
from lobit.errors import ConfigError
from lobit.models import model_info
from lobit.nn import SquaredHingeLoss
from lobit.recipes import Recipe
from lobit.training.checkpoints import load_model
from lobit.training.distillation import Distillation


def teach(recipe: Recipe, model: nn.Module, data: DataSet) -> Distillation | None:
    """The loss with the recipe's teacher; None where it has none.

    Raises
    ------
    ConfigError
        When there is no such run, or its net takes other images or knows other classes.
    """
    spec = recipe.distill
    if spec is None:
        return None
    net, of = load_model(spec.teacher)
    info = model_info(of.model.name)
    if info.input_shape != data.train_images.shape[1:] or info.num_classes != len(data.classes):
        raise ConfigError(
            f"the teacher {spec.teacher!r} takes images of {info.input_shape} in {info.num_classes} classes, {data.name} has "
            f"{data.train_images.shape[1:]} in {len(data.classes)}; name a run on such data"
        )
    same = (of.data.low, of.data.high) == (recipe.data.low, recipe.data.high)
    return Distillation(
        net if same else Rescaled(net, recipe, of),
        temperature=spec.temperature,
        weight=spec.weight,
        hard=SquaredHingeLoss() if recipe.loss == "squared-hinge" else nn.CrossEntropyLoss(),
        hints={mine: theirs if same else f"net.{theirs}" for mine, theirs in spec.hints.items()},
        hint_weight=spec.hint_weight,
        student=model,
    )


class Rescaled(nn.Module):
    """A net behind a map from one recipe's range of pixels to its own."""

    def __init__(self, net: nn.Module, given: Recipe, wanted: Recipe) -> None:
        super().__init__()
        self.net = net
        self.factor = (wanted.data.high - wanted.data.low) / (given.data.high - given.data.low)
        self.low, self.own_low = given.data.low, wanted.data.low

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in the range of the given recipe."""
        return self.net((x - self.low) * self.factor + self.own_low)  # type: ignore[no-any-return]
