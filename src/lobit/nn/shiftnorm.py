"""Shift-based batch normalization: batch norm whose products are with powers of two, shifts in fixed point."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError
from lobit.nn.once import without_derivative
from lobit.quantizers.base import check_flag
from lobit.quantizers.powers import ap2
from lobit.quantizers.straight_through import straight_through

_NO_DERIVATIVE = "the gradient of shift-based batch norm cannot be differentiated: powers of two have no derivative; drop create_graph=True, or use BatchNorm"


def _axes(x: Tensor) -> tuple[int, ...]:
    """All but the channels'."""
    return (0, *range(2, x.ndim))


def _over_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


class _ShiftNorm(torch.autograd.Function):
    """Algorithm 2, forward and backward; of tensors of x's size only x itself is saved, as ordinary batch norm does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        axes, v = _axes(x), x.to(torch.promote_types(x.dtype, torch.float32))
        mean = v.mean(axes, keepdim=True)
        y = v - mean
        inverse = ((ap2(y) * y).mean(axes, keepdim=True) + eps).rsqrt()
        y *= _factor(inverse, weight, x)
        if bias is not None:
            y += _over_channels(bias, x)
        return y.to(x.dtype), mean.flatten(), inverse.flatten()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor | None, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, _ = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, mean, inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        with torch.no_grad():
            found = _backward(grad, x, weight, mean, inverse)
        of = (grad, x) if weight is None else (grad, x, weight)
        return *(None if g is None else without_derivative(g, _NO_DERIVATIVE, *of) for g in found), None


def _backward(grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    axes, g = _axes(x), grad.to(mean.dtype)
    step = ap2(inverse)
    centred = ap2(x.to(mean.dtype) - _over_channels(mean, x))
    count = x.numel() // mean.numel()
    sum_g, sum_cg = g.sum(axes), (centred * g).sum(axes)
    dx = g - _over_channels(sum_g / count, x)
    dx -= centred * _over_channels(step * step * sum_cg / count, x)
    dx *= _factor(inverse, weight, x)
    # AP2(c2 s2) = c2 s2: both are powers of two
    return (dx.to(x.dtype), None, None) if weight is None else (dx.to(x.dtype), step * sum_cg, sum_g)


def _factor(inverse: Tensor, weight: Tensor | None, x: Tensor) -> Tensor:
    """``AP2(s) AP2(gamma)``, broadcastable to x."""
    factor = ap2(inverse.flatten())
    return _over_channels(factor if weight is None else factor * ap2(weight), x)


class ShiftBatchNorm(nn.Module):
    """What both ranks share."""

    running_mean: Tensor
    running_inverse_std: Tensor
    _ranks: tuple[int, ...]

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.125, affine: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        if type(num_features) is not int or num_features < 1:
            raise ConfigError(f"num_features of {type(self).__name__} is a whole number from 1, not {num_features!r}")
        if not (isinstance(eps, (int, float)) and 0 < eps < math.inf):
            raise ConfigError(f"eps of {type(self).__name__} is a positive number, not {eps!r}")
        if not (isinstance(momentum, (int, float)) and 0 <= momentum <= 1):
            raise ConfigError(f"momentum of {type(self).__name__}, the share of the new batch, is a number from 0 to 1, not {momentum!r}")
        check_flag(affine, "affine", type(self).__name__)
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, float(eps), float(momentum), affine
        make = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.ones(num_features, **make)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **make)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, **make))
        self.register_buffer("running_inverse_std", torch.ones(num_features, **make))

    def reset_running_stats(self) -> None:
        """Back to a mean of 0 and a deviation of 1."""
        self.running_mean.zero_()
        self.running_inverse_std.fill_(1)

    def reset_parameters(self) -> None:
        """Running statistics as at the start, ``weight`` 1, ``bias`` 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three operands of eval.

        Returns
        -------
        mean, factor, bias : Tensors of shape (C,)
            ``y = (x - mean) * factor + bias`` with ``factor = AP2(running_inverse_std) * AP2(weight)``, a power of two or 0, with a sign.
        """
        factor = ap2(self.running_inverse_std)
        if self.weight is not None:
            factor = factor * straight_through(self.weight, ap2(self.weight))
        return self.running_mean, factor, torch.zeros_like(self.running_mean) if self.bias is None else self.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Normalize input of shape (N, C, ..)."""
        if input.ndim not in self._ranks or input.shape[1] != self.num_features:
            wanted = " or ".join(f"(N, {', '.join([str(self.num_features), 'H', 'W', 'D'][: rank - 1])})" for rank in self._ranks)
            raise ShapeError(f"{type(self).__name__} takes input of shape {wanted}, not {tuple(input.shape)}")
        if not self.training:
            mean, factor, bias = (_over_channels(each, input) for each in self.factors())
            return ((input - mean) * factor + bias).to(input.dtype)
        if input.numel() <= self.num_features:
            raise ShapeError(
                f"{type(self).__name__} in training needs more than one value for each channel, not input of shape {tuple(input.shape)}; "
                "use larger batches (drop_last=True in the loader), or eval()"
            )
        y, mean, inverse = _ShiftNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_inverse_std.lerp_(inverse.to(self.running_mean.dtype), self.momentum)
        return y  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class ShiftBatchNorm2d(ShiftBatchNorm):
    """Shift-based batch norm of input of shape (N, C, H, W).

    Training, over a channel's values of the batch, with `lobit.quantizers.ap2`:
    ``c = x - mean(x)``, ``c2 = AP2(c)``, ``s = (mean(c2 c) + eps)^(-1/2)``, ``s2 = AP2(s)``, ``y = c s2 AP2(weight) + bias``.

    Backward: ``dx = (g - mean(g) - c2 s2^2 mean(c2 g)) s2 AP2(weight)``, ``dweight = sum(AP2(c s2) g)``, ``dbias = sum(g)``. It may not be differentiated again.

    Running statistics: ``r <- (1 - momentum) r + momentum r_batch`` of the mean and of the *inverse* deviation s, not rounded.

    Eval: ``y = (x - running_mean) * (AP2(running_inverse_std) AP2(weight)) + bias``: three float operations, of which the product is exact. It exports as these.

    Statistics are formed in float32 at least, whatever the dtype of x. ``state_dict`` has ``weight``, ``bias``, ``running_mean`` and ``running_inverse_std``, of shape (C,) each.
    It is not that of `torch.nn.BatchNorm2d`, whose ``running_var`` means another thing.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float
        Share of the new batch in the running statistics, 0 to 1.
    affine : bool
        Whether there are ``weight``, which starts at 1, and ``bias``, which starts at 0.
    device, dtype
        As torch's.

    Raises
    ------
    ConfigError
        For settings out of range.
    ShapeError
        For input of another shape, or in training with one value for each channel.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, Algorithm 2; eps, momentum and the inverse deviation are the released Torch code's.

    Examples
    --------
    >>> norm = ShiftBatchNorm2d(3)
    >>> norm(torch.randn(8, 3, 4, 4)).shape, list(norm.state_dict())
    (torch.Size([8, 3, 4, 4]), ['weight', 'bias', 'running_mean', 'running_inverse_std'])
    """

    _ranks = (4,)


class ShiftBatchNorm1d(ShiftBatchNorm):
    """Shift-based batch norm of input of shape (N, C) or (N, C, L); else as `ShiftBatchNorm2d`."""

    _ranks = (2, 3)
