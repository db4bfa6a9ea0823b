"""Weight codes kept between forward passes of eval, until anything they were made from changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from lobit.quantizers import Quantized, WeightQuantizer
from lobit.quantizers.tracing import differentiated, traced

_optimizer_steps = 0


def _count_step(*_: Any) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_step)  # fused optimizers change parameters and move no version


class KeptCodes:
    """Codes and scale of one layer's weights, with what they were made from.

    A change is seen when a tensor is another object, has other storage, dtype or device, or another version (PyTorch counts in-place operations), and
    every step of any `torch.optim.Optimizer` counts as one. Writing
    through ``tensor.data`` moves no version: switch the layer's mode afterwards. The old storage is held while the codes are, so that no new
    tensor can stand at its address.
    """

    def __init__(self) -> None:
        self._sources: list[tuple[Tensor, Tensor, int]] = []
        self._codes: Quantized | None = None
        self._steps = -1

    def get(self, sources: Sequence[Tensor], make: Callable[[], Quantized]) -> Quantized:
        """The kept codes, or those that ``make`` returns, which are kept; ``sources`` are what it reads."""
        if self._codes is not None and self._steps == _optimizer_steps and self._unchanged(sources):
            return self._codes
        with torch.inference_mode(False), torch.no_grad():
            codes = make()
        # those of inference have no version, and what a tracer makes ends with it
        if type(codes.codes) is Tensor and not any(source.is_inference() for source in sources):
            self._sources = [(source, source.detach(), source._version) for source in sources]
            self._codes, self._steps = codes, _optimizer_steps
        return codes

    def drop(self) -> None:
        """Forget the codes."""
        self._sources, self._codes = [], None

    def _unchanged(self, sources: Sequence[Tensor]) -> bool:
        return len(sources) == len(self._sources) and all(
            now is then and now.data_ptr() == data.data_ptr() and now.dtype == data.dtype and now._version == version
            for now, (then, data, version) in zip(sources, self._sources, strict=True)
        )

    def __reduce__(self) -> tuple[type[KeptCodes], tuple[()]]:
        """A copy, or a pickle, starts empty."""
        return KeptCodes, ()


def codes_of(
    weight: Tensor, quantizer: WeightQuantizer | None, kept: KeptCodes, training: bool, rows: Callable[[Tensor], Tensor] | None = None
) -> Quantized | None:
    """Codes and scale of weights; in eval without gradient they are kept until the weights change.

    ``rows`` puts the output channels first, where the weights do not lie so.
    """
    if quantizer is None:
        return None

    def make() -> Quantized:
        return quantizer(weight if rows is None else rows(weight))

    sources = [weight, *quantizer.parameters(), *quantizer.buffers()]
    learning = training or differentiated(*sources)
    if learning or traced():
        return make()
    return kept.get(sources, make)
