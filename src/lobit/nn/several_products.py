"""What layers of several products share: a quantizer for each weight matrix and for each operand, in tables by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.cache import KeptCodes, codes_of
from lobit.nn.grouped import check_groups
from lobit.nn.holders import hold
from lobit.nn.integer_convolution import EXACT_IN_FLOAT32
from lobit.nn.quantized import code_range
from lobit.quantizers import ActivationQuantizer, CodeDropout, GradientQuantizer, Quantized, Quantizer, WeightQuantizer, get
from lobit.quantizers.base import Role, in_group
from lobit.quantizers.registry import Identifier

AS_INPUT = "as_input"


class QuantizedWeight(NamedTuple):
    """One weight matrix of a layer that has several, with its quantizer: what optimizers need of a `QuantizedLayer`."""

    weight: Tensor
    weight_quantizer: WeightQuantizer


class SeveralProducts(nn.Module):
    """Mixed into layers of torch.nn that multiply more than once: recurrent layers and cells, and attention.

    Attributes
    ----------
    weight_quantizers : ModuleDict
        By the name of the parameter.
    gradient_quantizer : GradientQuantizer or None
    """

    operand_tables: ClassVar[tuple[str, ...]] = ()
    """Names of the tables of activation quantizers."""
    weight_quantizers: nn.ModuleDict
    gradient_quantizer: GradientQuantizer | None
    _kept: dict[str, KeptCodes]

    def start_tables(self, gradient_quantizer: Identifier) -> None:
        """Empty tables, and the quantizer of gradients."""
        for table in ("weight_quantizers", *self.operand_tables):
            setattr(self, table, nn.ModuleDict())
        self._kept = {}
        self.gradient_quantizer = get(gradient_quantizer, "gradients")
        if self.gradient_quantizer is not None:
            self.gradient_quantizer.owner = self.gradient_quantizer.owner or self._name()

    def enter_weight(self, name: str, quantizer: WeightQuantizer | None) -> None:
        """Give a weight matrix a quantizer.

        Raises
        ------
        ConfigError
            For one with a scale for each side of 0, of which these layers have but one.
        """
        self._kept[name] = KeptCodes()
        if quantizer is not None:
            if quantizer.two_scales:
                raise ConfigError(
                    f"quantizer {quantizer.alias!r} has a scale for each side of 0, and {name} of {self._name()} has place for one; take 'ternary'"
                )
            check_groups(quantizer, False, self._name())
            quantizer.attach(getattr(self, name))
            self._enter(self.weight_quantizers, name, quantizer)

    def enter_operand(
        self, table: str, key: str, quantizer: ActivationQuantizer | None, shape: tuple[int, ...], device: torch.device | None
    ) -> None:
        """Give an operand a quantizer, told of the operand's channels."""
        if quantizer is not None:
            quantizer.attach(shape, device)
        self._enter(getattr(self, table), key, quantizer)

    def _enter(self, table: nn.ModuleDict, key: str, quantizer: Quantizer | None) -> None:
        if quantizer is not None:
            owner = f"{key} of {quantizer.owner or self._name()}"
            if isinstance(quantizer, ActivationQuantizer):
                hold(quantizer, self, owner, key)
            quantizer.owner = owner
            quantizer.train(self.training)
            table[key] = quantizer

    def _name(self) -> str:
        return f"a {type(self).__name__}"

    @property
    def is_quantized(self) -> bool:
        """Whether it has a quantizer at all."""
        tables = (getattr(self, table) for table in ("weight_quantizers", *self.operand_tables))
        return any(len(table) > 0 for table in tables) or self.gradient_quantizer is not None

    @property
    def exact(self) -> bool:
        """Whether all operands of its products are codes, and no quantizer is switched off."""
        tables = [getattr(self, table) for table in ("weight_quantizers", *self.operand_tables)]
        return all(tables) and not any(quantizer.off for table in tables for quantizer in table.values())

    def quantized_weights(self) -> Iterator[QuantizedWeight]:
        """Its weight matrices that have a quantizer."""
        for name, quantizer in self.weight_quantizers.items():
            assert isinstance(quantizer, WeightQuantizer)
            yield QuantizedWeight(getattr(self, name), quantizer)

    def weight_codes(self, name: str) -> Quantized | None:
        """Codes and scale of a weight matrix; None where it is float."""
        return codes_of(getattr(self, name), self._weight_quantizer(name), self._kept[name], self.training)

    def check_dtype(self, like: Tensor) -> None:
        """Refuse weights of half the width.

        Raises
        ------
        ConfigError
            For weights in float16 or bfloat16.
        """
        if like.dtype in (torch.float16, torch.bfloat16):
            raise ConfigError(
                f"a quantized layer has {like.dtype} weights; keep them float32 (model.float()) and train with torch.autocast"
            )

    def _weight_quantizer(self, name: str) -> WeightQuantizer | None:
        return self._find(self.weight_quantizers, name)  # type: ignore[no-any-return]

    def _with_unused(self, x: Tensor) -> Tensor:
        """``x``; in data-parallel training, which waits for every parameter's gradient, with one of 0 for quantizers that are switched off."""
        if not (self.training and in_group()):
            return x
        tables = [getattr(self, table) for table in ("weight_quantizers", *self.operand_tables)]
        off = [quantizer for table in tables for quantizer in table.values() if quantizer.off]
        for parameter in (parameter for quantizer in off for parameter in quantizer.parameters() if parameter.requires_grad):
            x = x + 0 * parameter.sum()
        return x

    @staticmethod
    def _find(table: nn.ModuleDict, key: str) -> Any:
        quantizer = table[key] if key in table else None  # noqa: SIM401  # a ModuleDict has no get
        return None if quantizer is None or quantizer.off else quantizer

    def train(self, mode: bool = True) -> Any:
        """Switch the mode and drop kept weight codes."""
        self._drop()
        return super().train(mode)

    def _drop(self) -> None:
        for kept in vars(self).get("_kept", {}).values():
            kept.drop()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._drop()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._drop()
        if any(f"{prefix}{name}" in state_dict for name in self._kept):
            for table in ("weight_quantizers", *self.operand_tables):
                for key, quantizer in getattr(self, table).items():
                    if not any(name.startswith(f"{prefix}{table}.{key}.") for name in state_dict):
                        quantizer.reset()


def passes_exact(terms: int, a: ActivationQuantizer | WeightQuantizer, b: ActivationQuantizer | WeightQuantizer) -> bool:
    """Whether sums of this many products of codes pass what float32 holds exactly."""
    if any(quantizer.off or quantizer.fractions or getattr(quantizer, "observes", False) for quantizer in (a, b)):  # then they are floats
        return False
    return terms * _largest(a) * _largest(b) > EXACT_IN_FLOAT32


def _largest(quantizer: ActivationQuantizer | WeightQuantizer) -> int:
    return max(abs(end) for end in code_range(quantizer))


def makers(identifier: Identifier, role: Role) -> Callable[[], Any]:
    """What gives a quantizer of its own to each place: the first gets a given instance, the others copies."""
    if not isinstance(identifier, Quantizer):
        return lambda: get(identifier, role)
    pattern, given = copy.deepcopy(get(identifier, role)), [identifier]
    return lambda: given.pop() if given else copy.deepcopy(pattern)


def without_dropout(quantizer: ActivationQuantizer) -> ActivationQuantizer:
    """What stands in a `CodeDropout`; any other as it is."""
    return quantizer.quantizer if isinstance(quantizer, CodeDropout) else quantizer
