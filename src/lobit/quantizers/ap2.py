"""AP2: the power of two nearest to a number on a logarithmic scale, so that a product with it is a shift."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROOT = math.sqrt(2)  # in the dtype of what it is compared with it stands below the true root, so that `>` decides as real numbers do


def ap2(x: Tensor) -> Tensor:
    """The power-of-two proxy ``sign(x) 2^round(log2 |x|)``, of any shape; float.

    The exponent is read from the number, and rounded up where the mantissa, in [1, 2), is above sqrt(2): a rounded logarithm could take the wrong side of
    the boundary. No number is on it, as sqrt(2) is irrational. ``ap2(0) = 0``; infinities and NaN stay, and what rounds to ``2^128`` in float32 is infinite.

    No gradient: the function is constant between its jumps.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 3 (AP2); the released Torch code.

    Examples
    --------
    >>> ap2(torch.tensor([0.0, 1.41, 1.42, -3.0]))
    tensor([ 0.,  1.,  2., -4.])
    """
    exact = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    mantissa, exponent = torch.frexp(exact)  # |mantissa| in [1/2, 1)
    power = torch.ldexp(torch.ones_like(exact), exponent - (mantissa.abs() * 2 <= _ROOT).to(exponent.dtype))
    return torch.where((exact == 0) | ~torch.isfinite(exact), exact, power.copysign(exact)).to(x.dtype)
