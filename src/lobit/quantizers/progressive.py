"""A sign whose gradient sharpens in the course of training, from nearly a straight line to nearly a step."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, Quantizer, WeightQuantizer, constant
from lobit.quantizers.registry import register
from lobit.quantizers.sign import OneBit, sign_codes
from lobit.quantizers.tracing import differentiated

Shape = Literal["tanh", "hardtanh"]
FIRST, LAST = 0.1, 10.0  # IR-Net's sharpness at the start and at the end


class _Sharpening(torch.autograd.Function):
    """The codes forward; backward the slope at the saved input for the sharpness of this pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, codes: Tensor, sharpness: Tensor, shape: Shape) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Shape], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[2])
        ctx.shape = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, sharpness = ctx.saved_tensors
        return grad * progressive_slope(x, sharpness, ctx.shape), None, None, None


def progressive_slope(x: Tensor, sharpness: Tensor, shape: Shape) -> Tensor:
    """``max(1, t) f'(t x)`` for the sharpness t, see `progressive_sign`; of the dtype of ``x``."""
    height = sharpness.clamp(min=1.0).to(x.dtype)
    z = (x * sharpness.to(x.dtype)).abs_()
    if shape == "hardtanh":
        return (z <= 1).to(x.dtype).mul_(height)
    e = z.mul_(-2).exp_()  # 1 - tanh(z)^2 = 4 e / (1 + e)^2, without the difference of two numbers near 1
    return e / (1 + e).square_() * (4 * height)


def progressive_sign(x: Tensor, sharpness: Tensor, shape: Shape = "tanh") -> Tensor:
    """The sign, with the gradient of a smooth step of a given sharpness.

    Forward: ``+1 if x >= 0 else -1``. Backward, with the sharpness t: the derivative of ``k f(t x)`` with ``k = max(1 / t, 1)``, that is
    ``g_x = g * max(1, t) * f'(t x)``, with

    - ``tanh``: ``f'(z) = 1 - tanh(z)^2``, IR-Net's;
    - ``hardtanh``: ``f'(z) = 1[|z| <= 1]``, a window of width ``1 / t`` to each side.

    A small t passes the gradient almost everywhere with slope 1, so that all values learn; a large one only near 0, so that it is that of the sign.

    Parameters
    ----------
    x : Tensor
        Floats of any shape.
    sharpness : float32 Tensor of shape ()
        Positive. It gets no gradient.
    shape : {"tanh", "hardtanh"}
        The step.

    References
    ----------
    Qin et al., Forward and Backward Information Retention for Accurate Binary Neural Networks (IR-Net), arXiv 1909.10788, section 3.3, error decay
    estimator.
    """
    codes = sign_codes(x)
    if not differentiated(x):
        return codes
    return _Sharpening.apply(x, codes, sharpness, shape)  # type: ignore[no-any-return, no-untyped-call]


class Progressive(Quantizer):
    """Mixed into a quantizer that changes with the share of the training that is done; `lobit.training.sharpen` moves all of a model.

    Attributes
    ----------
    progress : Tensor
        float32, from 0 to 1; a buffer, so that it is saved with the model.
    """

    progress: Tensor

    def set_progress(self, share: float) -> None:
        """Say which share of the training is done, from 0 to 1.

        Raises
        ------
        ConfigError
            For a share out of that range.
        """
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigError(f"the share of the training that is done lies from 0 to 1, it is not {share!r}; give epoch / epochs")
        self.progress.fill_(share)


class _ProgressiveSign(OneBit, Progressive):
    def __init__(self, bits: int = 1, shape: Shape = "tanh", first: float = FIRST, last: float = LAST) -> None:
        super().__init__(bits)
        if shape not in get_args(Shape):
            raise ConfigError(f"quantizer {self.alias!r} has no shape {shape!r}; choose one of {', '.join(get_args(Shape))}")
        for sharpness, name in ((first, "first"), (last, "last")):
            if not isinstance(sharpness, int | float) or not 1e-3 <= sharpness <= 1e3:
                raise ConfigError(f"quantizer {self.alias!r} has a sharpness {name} from 0.001 to 1000, not {sharpness!r}")
        self.shape: Shape = shape
        self.first, self.last = float(first), float(last)
        self.register_buffer("progress", torch.zeros(()))

    @property
    def sharpness(self) -> Tensor:
        """``first * (last / first)^progress``: as many times sharper in each equal part of the training."""
        return self.first * (self.last / self.first) ** self.progress

    def forward(self, x: Tensor) -> Quantized:
        """Codes -1 and +1 of a tensor of any shape."""
        return Quantized(progressive_sign(x, self.sharpness, self.shape), constant(1.0, x), self.zero)

    def reset(self) -> None:
        """Start at the first sharpness again."""
        self.progress.zero_()

    def extra_repr(self) -> str:
        """Code type, shape and range of sharpness, for printing."""
        return f"odd1, {self.shape}, sharpness {self.first:g} to {self.last:g}"


@register("progressive_sign")
class ProgressiveSign(_ProgressiveSign, ActivationQuantizer):
    """Activations of one bit: `progressive_sign`, whose sharpness goes from ``first`` to ``last`` as training goes on; scale 1.

    Forward: the sign. Backward: with the sharpness ``t = first * (last / first)^progress``. Recipes set ``progress`` to ``epoch / epochs`` at each epoch;
    in a loop of your own `lobit.training.sharpen` does. It is a part of the state, and stays as it is where nothing moves it.

    Parameters
    ----------
    bits : int
        1.
    shape : {"tanh", "hardtanh"}
        The step that stands in for the sign.
    first, last : float
        Sharpness at the start and at the end, 0.001 to 1000; the paper's 0.1 and 10.
    """

    def steps(self) -> list[tuple[str, Tensor]]:
        """No step: the code is the sign of the input."""
        return []


@register("progressive_sign")
class ProgressiveSignWeights(_ProgressiveSign, WeightQuantizer):
    """Plain -1/+1 weights: `progressive_sign`, as `ProgressiveSign` has it; latent weights clipped to [-1, 1]; scale 1.

    Parameters
    ----------
    bits : int
        1.
    shape : {"tanh", "hardtanh"}
        The step that stands in for the sign.
    first, last : float
        Sharpness at the start and at the end, 0.001 to 1000; the paper's 0.1 and 10.
    """

    latent_range = (-1.0, 1.0)
