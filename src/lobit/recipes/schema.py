"""What a recipe may say: pydantic models that refuse anything else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
    """Adam: first and last learning rate and the way between them by epoch; L2 penalty."""

    lr: float = Field(gt=0)
    lr_end: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_end(self) -> OptimizerSpec:
        if (self.schedule == "constant") != (self.lr_end is None):
            raise ValueError("lr_end belongs to the schedules exponential and cosine, which need it")
        return self


class Recipe(_Strict):
    """A training run, whole: with the seed it repeats.

    ``step_scale`` multiplies the step of each layer's latent weights: ``glorot`` as the paper's Theano code, ``power-of-two`` as its Torch code.
    """

    description: str = ""
    model: ModelSpec
    data: DataSpec
    loss: Literal["cross-entropy", "squared-hinge"] = "cross-entropy"
    optimizer: OptimizerSpec
    step_scale: Literal["glorot", "power-of-two"] | None = None
    epochs: int = Field(ge=1, strict=True)
    batch_size: int = Field(ge=2, strict=True)
    seed: int = Field(default=1, ge=0, lt=2**32, strict=True)
    threads: int | None = Field(default=None, ge=1, strict=True)
