"""What a recipe may say: pydantic models that refuse anything else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from lobit.bits import Bits
from lobit.errors import ConfigError

Beta = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSpec(_Strict):
    """A model of the zoo: its name, its bits (``"W1A1"``; none for float) and the arguments of its factory."""

    name: str
    bits: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)


class DataSpec(_Strict):
    """A data set, the range that pixels are mapped to, and how many training samples are kept for validation."""

    name: str
    low: float = Field(default=0.0, ge=-1e6, le=1e6)
    high: float = Field(default=1.0, ge=-1e6, le=1e6)
    validation: int = Field(default=0, ge=0, strict=True)

    @model_validator(mode="after")
    def _rising(self) -> DataSpec:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class OptimizerSpec(_Strict):
    """Adam, and what all optimizers have: first and last learning rate and the way between them by epoch; L2 penalty.

    The schedule ``step`` halves the rate every ``halve_every`` epochs.
    """

    name: Literal["adam", "sgd", "shift-adamax", "bop"] = "adam"
    lr: float = Field(gt=0)
    lr_end: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "exponential", "cosine", "step"] = "constant"
    halve_every: int | None = Field(default=None, ge=1, strict=True)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_end(self) -> OptimizerSpec:
        if (self.schedule in ("exponential", "cosine")) != (self.lr_end is not None):
            raise ValueError("lr_end belongs to the schedules exponential and cosine, which need it")
        if (self.schedule == "step") != (self.halve_every is not None):
            raise ValueError("halve_every belongs to the schedule step, which needs it")
        return self


class SGDSpec(OptimizerSpec):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: Beta = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _momentum(self) -> SGDSpec:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class ShiftAdaMaxSpec(OptimizerSpec):
    """The paper's AdaMax by shifts, as `lobit.optim.ShiftAdaMax`; ``betas`` are the form's own where they are left out."""

    name: Literal["shift-adamax"] = "shift-adamax"
    form: Literal["torch", "paper"] = "torch"
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] | None = None


class BopSpec(OptimizerSpec):
    """Bop for one-bit weights, with ``gamma`` and ``threshold``; Adam with ``lr`` for all else. The schedule moves ``gamma`` too."""

    name: Literal["bop"] = "bop"
    gamma: float = Field(default=1e-4, gt=0, le=1)
    threshold: float = Field(default=1e-8, ge=0)


class ScheduleSpec(_Strict):
    """Quantizers that change: in float up to ``delay``, then at least the widths of ``until`` up to its epochs or steps, as `lobit.training.QuantizationSchedule`.

    ``{delay: 2, until: {4: W8A8, 8: W4A4}}``
    """

    delay: int = Field(default=0, ge=0, strict=True)
    until: dict[Annotated[int, Field(ge=1)], str] = Field(default_factory=dict)
    unit: Literal["epochs", "steps"] = "epochs"

    @model_validator(mode="after")
    def _readable(self) -> ScheduleSpec:
        if not (self.delay or self.until):
            raise ValueError("a schedule needs a delay, or widths in until")
        if self.delay and self.delay >= min(self.until, default=self.delay + 1):
            raise ValueError(f"the delay of {self.delay} must end before the first width of until, at {min(self.until)}")
        for text in self.until.values():
            try:
                _parse(text)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def widths(self) -> dict[int, str]:
        """The delay and the widths as `QuantizationSchedule` takes them."""
        return ({self.delay: "float"} if self.delay else {}) | self.until

    @property
    def weights_change(self) -> bool:
        """Whether weights have other bits than the model's for a while."""
        return bool(self.delay) or any(_parse(text).weights != 1 for text in self.until.values())


class DistillSpec(_Strict):
    """Distillation from another run: its folder or checkpoint, and how, as `lobit.training.Distillation`."""

    teacher: str = Field(min_length=1)
    temperature: float = Field(default=4.0, gt=0)
    weight: float = Field(default=0.5, ge=0, le=1)
    hints: dict[str, str] = Field(default_factory=dict)
    hint_weight: float = Field(default=1.0, ge=0)


class WatchSpec(_Strict):
    """What is looked at on the way: the share of weight codes that an epoch changed, and layers that no gradient reaches for ``patience`` steps."""

    flips: bool = False
    starved: Literal["warn", "error"] | None = None
    patience: int = Field(default=100, ge=1, strict=True)


def _parse(text: str) -> Bits:
    return Bits() if text == "float" else Bits.parse(text)


def _name(value: Any) -> str:
    """Which optimizer a recipe means; Adam where it names none."""
    name = value.get("name", "adam") if isinstance(value, dict) else getattr(value, "name", "adam")
    return str(name)


AnyOptimizer = Annotated[
    Annotated[OptimizerSpec, Tag("adam")]
    | Annotated[SGDSpec, Tag("sgd")]
    | Annotated[ShiftAdaMaxSpec, Tag("shift-adamax")]
    | Annotated[BopSpec, Tag("bop")],
    Discriminator(_name, custom_error_type="optimizer", custom_error_message="name must be 'adam', 'sgd', 'shift-adamax' or 'bop'"),
]


class Recipe(_Strict):
    """A training run, whole: with the seed it repeats.

    ``step_scale`` multiplies the step of each layer's latent weights: ``glorot`` as the paper's Theano code, ``power-of-two`` as its Torch code.
    """

    description: str = ""
    model: ModelSpec
    data: DataSpec
    loss: Literal["cross-entropy", "squared-hinge"] = "cross-entropy"
    optimizer: AnyOptimizer
    step_scale: Literal["glorot", "power-of-two"] | None = None
    schedule: ScheduleSpec | None = None
    distill: DistillSpec | None = None
    watch: WatchSpec = WatchSpec()
    epochs: int = Field(ge=1, strict=True)
    batch_size: int = Field(ge=2, strict=True)
    seed: int = Field(default=1, ge=0, lt=2**32, strict=True)
    threads: int | None = Field(default=None, ge=1, strict=True)

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        schedule = self.schedule
        if schedule is None:
            return self
        if schedule.unit == "epochs" and max(schedule.widths) >= self.epochs:
            raise ValueError(
                f"the schedule of bits ends at epoch {max(schedule.widths)}, and the run has {self.epochs}: at least one must follow; ask for more epochs"
            )
        if self.optimizer.name == "bop" and schedule.weights_change:
            raise ValueError("bop trains one-bit weights, and the schedule gives them more bits at first; take another optimizer")
        return self


__all__ = [
    "BopSpec",
    "DataSpec",
    "DistillSpec",
    "ModelSpec",
    "OptimizerSpec",
    "Recipe",
    "SGDSpec",
    "ScheduleSpec",
    "ShiftAdaMaxSpec",
    "WatchSpec",
]
