"""Scales for groups of inputs: any quantizer with a scale for each output channel, on groups of a linear layer's inputs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, WeightQuantizer


class GroupedWeights(WeightQuantizer):
    """Weights of a linear layer with a scale for each output and each group of inputs: another quantizer on the groups.

    Forward: weights of shape ``(O, K)`` are cut along K into groups of ``group`` inputs. Each group of each output is a channel of its own to the quantizer, which is given shape
    ``(O * (K // group), group)``: ``value[o, k] = codes[o, k] * scale[o, k // group]``. Where ``group`` does not divide K, the last ``K % group`` inputs are a shorter group, with a quantizer
    of their own of the same settings; where it exceeds K there is one group. Backward: the quantizer's.

    Write it as a setting of the quantizer itself: ``{"name": "lsq", "bits": 4, "group": 64}``. In eval a layer adds exact sums, one for each group, each times its scale, in rising order of groups.

    Parameters
    ----------
    quantizer : WeightQuantizer
        That has a scale for each output channel, such as ``lsq``, ``affine``, ``magnitude_sign`` or ``ternary``; fresh.
    group : int
        Inputs that share a scale, at least 2.

    Raises
    ------
    ConfigError
        For another group; from `attach`, for weights that are no matrix, or a quantizer with one scale for the tensor.

    References
    ----------
    Shen et al., Q-BERT, arXiv 1909.05840 (group-wise quantization); Dettmers and Zettlemoyer, The case for 4-bit precision, arXiv 2212.09720 (blocks of 64 weights).
    """

    def __init__(self, quantizer: WeightQuantizer, group: int) -> None:
        super().__init__()
        if type(group) is not int or group < 2:
            raise ConfigError(f"a group of weights is a whole number of inputs from 2, not {group!r}")
        self.alias = quantizer.alias  # type: ignore[misc]  # it stands for the quantizer
        self.quantizer = quantizer
        self.rest: WeightQuantizer | None = None
        self.group = group
        self.latent_range = quantizer.latent_range

    @property
    def code_type(self) -> CodeType:
        """The quantizer's."""
        return self.quantizer.code_type

    @property
    def fractions(self) -> bool:
        """The quantizer's."""
        return self.quantizer.fractions

    @property
    def bits(self) -> int:  # type: ignore[override]  # it changes by set_bits
        """The quantizer's width."""
        bits = getattr(self.quantizer, "bits", None)
        return bits if isinstance(bits, int) else self.code_type.bits

    def attach(self, weight: Tensor) -> None:
        """Make room for the state of each group."""
        if weight.ndim != 2:
            raise ConfigError(
                f"scales for groups of inputs (group={self.group}) are for linear layers; these weights have shape {tuple(weight.shape)}: leave group out, "
                "which gives each output channel a scale"
            )
        self._check_scale(weight)
        whole = weight.shape[1] - weight.shape[1] % self.group
        if whole and whole < weight.shape[1]:
            self.rest = copy.deepcopy(self.quantizer)
            self.rest.attach(weight[:, whole:])
        self.quantizer.attach(self._rows(weight[:, :whole]) if whole else weight)

    def _check_scale(self, weight: Tensor) -> None:
        trial, two = copy.deepcopy(self.quantizer).eval(), torch.tensor([[0.5, -1.0], [1.0, 2.0]])
        trial.attach(two)
        with torch.no_grad():
            made: Quantized = trial(two)
        more = any(getattr(made, name) is not None for name in made._fields if name not in ("codes", "scale", "zero"))
        if made.scale.numel() == 1 or more:
            why = (
                "more than one scale for a weight, which groups have no place for"
                if more
                else "one scale for all weights, so that groups would change nothing"
            )
            raise ConfigError(
                f"quantizer {self.alias!r} of these settings has {why}; leave group out, or take 'lsq', 'affine', 'magnitude_sign' or 'ternary'"
            )

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, K)``; scale of shape ``(O, K)``, equal within a group."""
        whole = x.shape[1] - x.shape[1] % self.group
        if not whole:
            return self._spread(self.quantizer(x), x)
        first = self._spread(self.quantizer(self._rows(x[:, :whole])), x[:, :whole])
        if self.rest is None:
            return first
        last = self._spread(self.rest(x[:, whole:]), x[:, whole:])
        return Quantized(torch.cat([first.codes, last.codes], 1), torch.cat([first.scale, last.scale], 1), self.zero)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.group)

    def _spread(self, made: Quantized, x: Tensor) -> Quantized:
        """Codes and scale of rows as those of a part of the weights."""
        return Quantized(made.codes.reshape(x.shape), made.scale.expand_as(made.codes).reshape(x.shape), self.zero)

    def check_bits(self, bits: int) -> None:
        """Refuse a width that the quantizer cannot have."""
        self.quantizer.check_bits(bits)

    def set_bits(self, bits: int) -> None:
        """Change the quantizer's width."""
        for quantizer in self._both():
            quantizer.set_bits(bits)

    def reset(self) -> None:
        """Forget the quantizer's state."""
        for quantizer in self._both():
            quantizer.reset()

    def _both(self) -> list[WeightQuantizer]:
        return [self.quantizer] if self.rest is None else [self.quantizer, self.rest]

    def extra_repr(self) -> str:
        """The group, for printing."""
        return f"group={self.group}"
