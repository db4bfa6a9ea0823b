"""The share of weight codes that change: whether a low-bit net still learns, and whether it settles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobit.bits import CodeType
from lobit.training.matrices import Matrix, matrices

ALL = "all"


class FlipRatio:
    """The share of weight codes that changed from look to look, of each layer, or of each matrix of a layer that has several, and of all.

    For one bit it is the share of flipped signs. The first look only remembers; each later one counts. Layers whose weights are float, or whose quantizer is off
    or has changed its width since the last look, only remember too.

    Parameters
    ----------
    model : nn.Module
        Its codes are kept as one byte a weight between looks; codes that are no integers, as those of ``log`` from 5 bits on, as floats.

    References
    ----------
    Helwegen et al., Latent Weights Do Not Exist, arXiv 1906.02107, section 5 (the flips of a step), whose logarithm they draw.

    Examples
    --------
    >>> import lobit
    >>> model = nn.Sequential(lobit.nn.Linear(2, 1, weight_quantizer="sign"))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[0.5, -0.5]]))
    >>> flips = FlipRatio(model)
    >>> flips.update()
    >>> _ = model[0].weight.data.copy_(torch.tensor([[0.5, 0.1]]))
    >>> flips.update()
    >>> flips.compute()
    {'0': 0.5, 'all': 0.5}
    """

    def __init__(self, model: nn.Module) -> None:
        self._matrices = [matrix for matrix in matrices(model) if matrix.in_quantized_layer]
        self._last: dict[str, tuple[CodeType | int, Tensor]] = {}
        self._changed: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Look at the codes, and count those that differ from the last look's."""
        for matrix in self._matrices:
            name, codes = matrix.name, _codes(matrix)
            if codes is None:
                self._last.pop(name, None)
                continue
            kind, now = codes
            if name in self._last and self._last[name][0] == kind:
                last = self._last[name][1].to(now.device)
                self._changed[name] = self._changed.get(name, 0) + int((last != now).sum())
                self._seen[name] = self._seen.get(name, 0) + now.numel()
            self._last[name] = (kind, now)

    def compute(self) -> dict[str, float]:
        """By layer, and as ``"all"`` over every weight: the mean share of codes that changed from one look to the next, since `reset`; empty before there are two looks."""
        shares = {name: self._changed[name] / seen for name, seen in self._seen.items() if seen}
        total = sum(self._seen.values())
        return {**shares, ALL: sum(self._changed.values()) / total} if total else {}

    def reset(self) -> None:
        """Begin a new mean; the codes of the last look are kept."""
        self._changed, self._seen = {}, {}


def _codes(matrix: Matrix) -> tuple[CodeType | int, Tensor] | None:
    """The type, or the width where there is no type, and the codes of weights as eval has them; None where there are none."""
    quantizer = matrix.quantizer
    if quantizer is None:
        return None
    training = quantizer.training
    quantizer.eval()
    try:
        if quantizer.fractions:  # no code type, so that the width alone tells them apart
            return int(getattr(quantizer, "bits", 0)), quantizer(matrix.rows(matrix.weight)).codes.clone()
        kind = quantizer.code_type
        narrow = torch.int8 if kind.lo >= -128 and kind.hi <= 127 else torch.int16
        return kind, quantizer(matrix.rows(matrix.weight)).codes.to(narrow, copy=True)
    finally:
        quantizer.train(training)
