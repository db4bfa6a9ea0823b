"""Captured models of the zoo, once for all tests."""

from __future__ import annotations

import functools

import torch

import lobit
from lobit.capture.capture import capture
from lobit.format import Graph
from lobit.models import model_info


@functools.cache
def captured(name: str, bits: str | None) -> Graph:
    """The graph of a fresh model of the zoo; its learned-step quantizers are calibrated with noise."""
    model = lobit.models.create(name, bits=bits)
    x = torch.rand(2, *model_info(name).input_shape, generator=torch.Generator().manual_seed(0))
    with lobit.quantizers.calibrating(model):
        model(x)
    return capture(model.eval(), (x,)).graph
