"""Calibration without training: quantizers take sign and step from data, while all else is in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lobit.quantizers.base import ActivationQuantizer


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Let quantizers that have seen no data start from the batch that runs through the model in this block.

    No gradient is taken, batch norm statistics stay, quantizers that have started already stay as they are.

    Examples
    --------
    >>> from lobit.quantizers import LSQ
    >>> quantizer = LSQ(4).eval()
    >>> with calibrating(quantizer):
    ...     _ = quantizer(torch.tensor([-1.0, 0.5, 2.0]))
    >>> str(quantizer.code_type)
    'signed4'
    """
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for quantizer in quantizers:
            quantizer.calibrating = True
        with torch.no_grad():
            yield
    finally:
        for quantizer in quantizers:
            quantizer.calibrating = False
        for module, training in modes:
            module.training = training
