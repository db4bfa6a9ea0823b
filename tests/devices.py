"""The devices that training is tested on: `@pytest.mark.parametrize("device", DEVICES)`. A GPU's tests are skipped by name where there is none."""

import pytest
import torch

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.hardware, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")]),
]
