"""Settings that are no numbers are refused like numbers out of range."""

from __future__ import annotations

import pytest
import torch

from lobit import nn as lnn
from lobit.errors import ConfigError
from lobit.optim import Bop, ShiftAdaMax
from lobit.quantizers import MinMax, Percentile

WEIGHTS = [torch.nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Bop(WEIGHTS, gamma="a"), "gamma"),
        (lambda: Bop(WEIGHTS, threshold="a"), "threshold"),
        (lambda: ShiftAdaMax(WEIGHTS, lr="a"), "lr"),
        (lambda: ShiftAdaMax(WEIGHTS, betas=0.9), "betas"),
        (lambda: ShiftAdaMax(WEIGHTS, betas=(0.9, "a")), "betas"),
        (lambda: ShiftAdaMax(WEIGHTS, eps="a"), "eps"),
        (lambda: ShiftAdaMax(WEIGHTS, weight_decay="a"), "weight_decay"),
        (lambda: Percentile("a"), "percent"),
        (lambda: MinMax("a"), "momentum"),
        (lambda: lnn.ShiftBatchNorm1d(2, affine="no"), "affine"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(make, name):
    with pytest.raises(ConfigError, match=name):
        make()
