"""Batch normalization whose eval is two float operations, the same on every CPU."""

from __future__ import annotations

from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.quantizers.base import wide


class _TwoSteps(nn.modules.batchnorm._BatchNorm):
    """Eval: ``x * a + b``, the product and the sum each rounded once. PyTorch's own fuses them on some CPUs and not on others."""

    def factors(self) -> tuple[Tensor, Tensor]:
        """The two factors of eval.

        Returns
        -------
        a, b : float32 Tensors of shape (C,)
            ``a = weight / sqrt(var + eps)``, ``b = bias - mean * a``: formed in float64 and rounded once, ``b`` from the unrounded ``a``.

        Raises
        ------
        ConfigError
            Without running statistics.
        """
        if self.running_mean is None or self.running_var is None:
            raise ConfigError("a batch norm without running statistics normalizes by the batch itself; use track_running_stats=True")
        mean, var = wide(self.running_mean), wide(self.running_var)
        a = (var + self.eps).pow(-0.5) if self.weight is None else wide(self.weight) / (var + self.eps).pow(0.5)
        b = -mean * a if self.bias is None else wide(self.bias) - mean * a
        return a.float(), b.float()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        if self.training or self.running_mean is None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # of torch's class
        shape = (-1, *[1] * (input.ndim - 2))
        a, b = (factor.to(input.dtype).view(shape) for factor in self.factors())
        return input * a + b


class BatchNorm1d(_TwoSteps, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, same state; see `BatchNorm2d`."""


class BatchNorm2d(_TwoSteps, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, same state. In training it is torch's; in eval ``x * a``, then ``+ b``, see ``factors``."""


class BatchNorm3d(_TwoSteps, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, same state; see `BatchNorm2d`."""
