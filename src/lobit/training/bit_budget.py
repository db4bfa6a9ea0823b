"""A price on bits: learned widths fall until a model keeps within a budget, then they are fixed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lobit.bits import FLOAT_BITS, Bits
from lobit.errors import ConfigError
from lobit.nn import Embedding, QuantizedLayer
from lobit.nn.several_products import SeveralProducts
from lobit.quantizers import LearnsBits, calibrating
from lobit.training.matrices import Matrix, matrices

_WORD = 64  # bits of a word of packed weights


@dataclass(frozen=True, slots=True)
class _Part:
    """A matrix, and what passes through it for one sample: numbers read and multiply-accumulates; 0 where no example says."""

    matrix: Matrix
    rows: int
    columns: int
    read: int = 0
    macs: int = 0

    @property
    def weight_bits(self) -> Tensor | int:
        return _bits(self.matrix.quantizer)

    @property
    def input_bits(self) -> Tensor | int:
        layer = self.matrix.layer
        return _bits(layer.input_quantizer) if isinstance(layer, QuantizedLayer) else FLOAT_BITS

    @property
    def weight_bytes(self) -> Tensor | int:
        """As packed: whole words for each output and bit; float32 where there are no codes."""
        if self.matrix.quantizer is None:
            return 4 * self.rows * self.columns
        return self.weight_bits * (self.rows * -(-self.columns // _WORD) * _WORD // 8)


_COSTS: dict[str, tuple[Callable[[_Part], Any], Callable[[_Part], int]]] = {
    "weight_bytes": (lambda part: part.weight_bytes, lambda part: 0),
    "weight_bits": (lambda part: part.weight_bits * part.rows * part.columns, lambda part: part.rows * part.columns),
    "activation_bits": (lambda part: part.input_bits * part.read, lambda part: part.read),
    "bit_operations": (lambda part: part.weight_bits * part.input_bits * part.macs, lambda part: 0),
}
"""What a part adds to each sum, and to what the sum is divided by to be a mean."""
_NEED_EXAMPLE = ("activation_bits", "bit_operations")


class BitBudget:
    """What learned widths may cost, as a term of the loss: nothing within the budget, and beyond it a price on every bit.

    Forward, over the limits given: ``strength * sum max(0, cost / limit - 1)``; costs are those of the whole widths that the next step would use. Backward: a width has the
    gradient of ``log2(top / step + 1)``, so that clipping levels fall and steps grow, most where bits cost most and the task needs them least. Once the model
    keeps within its limits the term is 0, and the task alone moves widths.

    Parameters
    ----------
    model : nn.Module
        With quantizers ``learned_bits`` (`lobit.quantizers.LearnedBits`).
    weight_bytes : int, optional
        Most bytes of all weights of linear, convolutional, recurrent, attention and embedding layers, as packed in the file; float layers count 4 bytes a weight.
    weight_bits : float, optional
        Most bits of a weight, on average over the same.
    activation_bits : float, optional
        Most bits of an activation, on average over all that layers with weights read; needs ``example``.
    bit_operations : float, optional
        Most ``macs * bits of a weight * bits of an activation`` for one sample, as `lobit.summary` counts them; needs ``example``.
    example : Tensor or tuple of Tensor, optional
        Input of the model, with a batch axis. Recurrent and attention layers have no part in what needs it.
    strength : float
        Of the price; larger than what the task's loss gains by a bit.

    Raises
    ------
    ConfigError
        For a model without learned widths, no limit at all, one that is not positive, or one that even the least widths exceed: it names what they cost.

    References
    ----------
    Uhlich et al., Mixed Precision DNNs: All you need is a good parametrization, arXiv 1905.11452 (a constraint on size as a penalty; its form here is lobit's).

    Examples
    --------
    >>> import lobit
    >>> learned = {"name": "learned_bits", "bits": 8}
    >>> net = nn.Sequential(lobit.nn.Linear(64, 10, weight_quantizer=learned, input_quantizer=learned))
    >>> budget = BitBudget(net, weight_bytes=320)
    >>> budget.costs(), float(budget())
    ({'weight_bytes': 640.0}, 1.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight_bytes: int | None = None,
        weight_bits: float | None = None,
        activation_bits: float | None = None,
        bit_operations: float | None = None,
        example: Tensor | Sequence[Tensor] | None = None,
        strength: float = 1.0,
    ) -> None:
        given = {
            "weight_bytes": weight_bytes,
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "bit_operations": bit_operations,
        }
        self.limits = {name: limit for name, limit in given.items() if limit is not None}
        if not self.limits:
            raise ConfigError(f"a bit budget has at least one limit: {', '.join(given)}")
        for name, value in {**self.limits, "strength": strength}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigError(f"{name} of a bit budget must be a positive number, not {value!r}")
        needy = [name for name in self.limits if name in _NEED_EXAMPLE]
        if needy and example is None:
            raise ConfigError(f"{needy[0]} depends on the size of activations: give example=, an input of the model with a batch axis")
        self.strength = strength
        self._learned = [module for module in model.modules() if isinstance(module, LearnsBits)]
        if not self._learned:
            raise ConfigError(
                "the model has no quantizer whose width is learned; give its layers one, as {'bits': 'W8A8', 'weights': 'learned_bits', 'activations': 'learned_bits'}"
            )
        self._parts = _parts(model, example if needy else None)
        self._check()

    def __call__(self) -> Tensor:
        """The term for the loss, a float32 Tensor of shape ()."""
        device = self._learned[0].log2_step.device
        excess = [torch.relu(torch.as_tensor(cost / self.limits[name] - 1, device=device)) for name, cost in self._costs().items()]
        return self.strength * torch.stack(excess).sum()

    def costs(self) -> dict[str, float]:
        """What each limit is for, as it is now."""
        return {name: float(cost.detach() if isinstance(cost, Tensor) else cost) for name, cost in self._costs().items()}

    @property
    def is_met(self) -> bool:
        """Whether every cost is within its limit."""
        return all(cost <= self.limits[name] for name, cost in self.costs().items())

    def _costs(self) -> dict[str, Any]:
        return {name: self._cost(name) for name in self.limits}

    def _cost(self, name: str) -> Any:
        amount, of = _COSTS[name]
        total: Any = sum((amount(part) for part in self._parts), start=0)
        return total / (sum(of(part) for part in self._parts) or 1)

    def _check(self) -> None:
        """Refuse limits below what the least widths cost, tried on a copy."""
        parts = [_Part(copy.deepcopy(part.matrix), part.rows, part.columns, part.read, part.macs) for part in self._parts]
        for part in parts:
            for quantizer in part.matrix.layer.modules():
                if isinstance(quantizer, LearnsBits) and not int(quantizer.width):
                    quantizer.width.fill_(quantizer.least)
        least = copy.copy(self)
        least._parts = parts
        for name, cost in least.costs().items():
            if cost > self.limits[name]:
                raise ConfigError(
                    f"{name}={self.limits[name]:g} is out of reach: with the least width of every learned quantizer it is {cost:g}; "
                    "raise the limit, lower least=, or let more layers learn their width"
                )


def freeze_bits(model: nn.Module) -> dict[str, Bits]:
    """Fix all learned widths where they are, for the last epochs and for export: from then on each quantizer is `lsq` of its width.

    Returns
    -------
    dict
        The bits of each layer that has a quantizer of a learned width, by path; a layer with several matrices has the widest of them.

    Raises
    ------
    ConfigError
        For a model without learned widths, or one of which one has not started.

    Examples
    --------
    >>> import lobit
    >>> net = nn.Sequential(lobit.nn.Linear(64, 10, weight_quantizer={"name": "learned_bits", "bits": 5}))
    >>> _ = net(torch.randn(8, 64))
    >>> freeze_bits(net)
    {'0': Bits(weights=5, activations=32, gradients=32)}
    """
    learned = [module for module in model.modules() if isinstance(module, LearnsBits)]
    if not learned:
        raise ConfigError("the model has no quantizer whose width is learned, so that there is none to fix")
    for quantizer in learned:
        quantizer.freeze()
    found = {}
    for path, layer in model.named_modules():
        if isinstance(layer, (QuantizedLayer, SeveralProducts)):
            layer.train(layer.training)  # drops codes that it keeps in eval
            widths = {
                role: max((q.bits for q in layer.modules() if isinstance(q, LearnsBits) and q.role == role), default=FLOAT_BITS)
                for role in ("weights", "activations")
            }
            if min(widths.values()) < FLOAT_BITS:
                found[path] = Bits(**widths)
    return found


def _bits(quantizer: Any) -> Tensor | int:
    """Bits of a quantizer's codes, with a gradient where they are learned."""
    if quantizer is None or quantizer.off:
        return FLOAT_BITS
    inner = getattr(quantizer, "quantizer", quantizer)
    if isinstance(inner, LearnsBits):
        return inner.real_bits()
    bits = getattr(inner, "bits", None)
    return bits if isinstance(bits, int) else int(inner.code_type.bits)


def _parts(model: nn.Module, example: Tensor | Sequence[Tensor] | None) -> list[_Part]:
    """The matrices of layers that a file has weights of, with what an example passes through them."""
    passed = {} if example is None else _passed(model, example)
    parts = []
    for matrix in matrices(model):
        if isinstance(matrix.layer, (QuantizedLayer, SeveralProducts, nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)):
            rows = matrix.rows(matrix.weight)
            columns = rows[0].numel()
            read, made = passed.get(matrix.name, (0, 0))
            parts.append(_Part(matrix, len(rows), columns, read, made * columns))
    return parts


def _passed(model: nn.Module, example: Tensor | Sequence[Tensor]) -> dict[str, tuple[int, int]]:
    """Numbers that each layer reads and makes for one sample, by path; of a copy, so that the model stays as it is."""
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    twin = copy.deepcopy(model)
    found: dict[str, tuple[int, int]] = {}

    def look(path: str) -> Callable[..., None]:
        def see(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            read, out = found.get(path, (0, 0))
            found[path] = read + given[0].numel() // len(given[0]), out + made.numel() // len(made)

        return see

    for path, layer in twin.named_modules():
        if isinstance(layer, (QuantizedLayer, nn.Linear, nn.modules.conv._ConvNd)) and not isinstance(layer, Embedding):
            layer.register_forward_hook(look(path))
    with calibrating(twin):
        twin(*inputs)
    return found
