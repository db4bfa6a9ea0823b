"""A linear layer whose weights have a scale for each group of inputs, in eval: exact sums of codes, one for each group, added in one order."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers import GroupedWeights, Quantized, WeightQuantizer

Sum = Callable[[Tensor, Tensor], Tensor]


def grouped_product(inputs: Quantized, weight: Quantized, group: int, exact_sum: Sum) -> Tensor:
    """``sum_0 * (scale_x * scale_w0) + sum_1 * (scale_x * scale_w1) + ..``, in rising order of groups, each operation rounded once in float32.

    An input with an offset adds ``ones_sum_g * (offset * scale_wg)`` behind each group's product.

    Parameters
    ----------
    inputs : Quantized
        Of shape (.., K).
    weight : Quantized
        Of shape (O, K), the scale too.
    group : int
    exact_sum : callable
        The exact sums ``(.., O)`` of codes ``(.., k)`` and ``(O, k)``.
    """
    codes, total = inputs.centred(), None
    for start in range(0, codes.shape[-1], group):
        own, scale = weight.codes[:, start : start + group], weight.scale[:, start]
        terms = [exact_sum(codes[..., start : start + group], own) * (inputs.scale * scale)]
        if inputs.offset is not None:
            terms.append(exact_sum(codes.new_ones(1, own.shape[1]), own).flatten() * (inputs.offset * scale))
        for term in terms:
            total = term if total is None else total + term
    assert total is not None
    return total


def check_groups(quantizer: WeightQuantizer | None, takes_groups: bool, layer: str) -> None:
    """Refuse groups on a layer that has none.

    Raises
    ------
    ConfigError
        For a `GroupedWeights` elsewhere than on a linear layer.
    """
    if isinstance(quantizer, GroupedWeights) and not takes_groups:
        raise ConfigError(
            f"scales for groups of inputs (group={quantizer.group}) are for linear layers, not for {layer}: leave group out there, which gives each output channel a scale"
        )
