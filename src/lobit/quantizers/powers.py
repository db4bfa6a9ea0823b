"""Powers of two, exactly: by the bits of a float, not by a logarithm that is rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lobit.quantizers.tracing import differentiated

# of each dtype: the integer of its width, the mask of sign and exponent, and what carries into the exponent from its own sqrt(2) on
_LAYOUT = {
    torch.float32: (torch.int32, -(1 << 23), (1 << 23) - 0x3504F3),
    torch.float64: (torch.int64, -(1 << 52), (1 << 52) - 0x6A09E667F3BCD),
}


def ap2(x: Tensor) -> Tensor:
    """The power of two nearest to x on a logarithmic axis, with the sign of x.

    Forward: ``sign(x) * 2^round(log2|x|)``, that is ``2^e`` for ``|x| = m 2^e`` with ``1 <= m < sqrt(2)``, else ``2^(e+1)``, with the sqrt(2) of the dtype; 0 stays 0, NaN stays
    NaN.
    It carries no gradient.

    Parameters
    ----------
    x : Tensor
        float32 or float64, or a narrower float, for which the result is found in float32.
        Magnitudes below the smallest normal number become that number or 0, those above ``sqrt(2)`` times the largest power become infinite.

    Returns
    -------
    Tensor
        Of the shape and dtype of ``x``.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 4.1 (AP2).

    Examples
    --------
    >>> ap2(torch.tensor([0.0, 1.0, -1.4, 1.5, 3.0, -100.0]))
    tensor([   0.,    1.,   -1.,    2.,    4., -128.])
    """
    v = x.detach()
    if v.dtype not in _LAYOUT:
        return ap2(v.float()).to(x.dtype)
    whole, mask, carry = _LAYOUT[v.dtype]
    power = ((v.view(whole) + carry) & mask).view(v.dtype)
    return torch.where(v.isnan(), v, power)


class _PowerOfTwo(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(scale: Tensor) -> Tensor:
        return ap2(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def power_of_two(scale: Tensor) -> Tensor:
    """A scale's nearest power of two, with a straight-through gradient: what the option ``power_of_two`` of quantizers makes of their scale.

    Forward: ``2^round(log2 scale)``, see `ap2`. Backward: ``g_scale = g``.

    Parameters
    ----------
    scale : float32 Tensor
        Positive.

    References
    ----------
    Jain et al., Trained Quantization Thresholds, arXiv 1903.08066, section 3 (scales that are powers of two, learned straight through; there rounded up).

    Examples
    --------
    >>> power_of_two(torch.tensor([0.3, 0.36, 3.0]))
    tensor([0.2500, 0.5000, 4.0000])
    """
    if not differentiated(scale):
        return ap2(scale)
    return _PowerOfTwo.apply(scale)  # type: ignore[no-any-return, no-untyped-call]


def used_scale(scale: Tensor, to_power: bool) -> Tensor:
    """The scale that a quantizer uses: its own, or where the option ``power_of_two`` asks for it the nearest power of two."""
    return power_of_two(scale) if to_power else scale


def floor_power(x: Tensor) -> Tensor:
    """``sign(x) * 2^floor(log2|x|)``: x with its mantissa set to 1; without a gradient.

    Parameters
    ----------
    x : Tensor
        float32 or float64. Magnitudes below the smallest normal number become 0; NaN becomes infinite.

    Examples
    --------
    >>> floor_power(torch.tensor([1.0, 1.9, -5.0]))
    tensor([ 1.,  1., -4.])
    """
    whole, mask, _ = _LAYOUT[x.dtype]
    return (x.detach().view(whole) & mask).view(x.dtype)
