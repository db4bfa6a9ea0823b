"""TTQ, trained ternary quantization: -1, 0 and +1 with a learned scale on each side of 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.quantizers.base import Quantized, check_flag, wide
from lobit.quantizers.from_data import FromWeights
from lobit.quantizers.lsq import SMALLEST, eval_step, keep_positive, kept_positive
from lobit.quantizers.observer import Sample
from lobit.quantizers.ranges import Method
from lobit.quantizers.registry import register
from lobit.quantizers.straight_through import straight_through
from lobit.quantizers.ternary import TERNARY, check_two_bits
from lobit.quantizers.tracing import differentiated

TTQ_THRESHOLD = 0.05


def ttq_codes(w: Tensor, threshold: float = TTQ_THRESHOLD, *, per_channel: bool = False) -> Tensor:
    """``sign(w) * 1[|w| > threshold * max|w|]``, the maximum of the tensor or of each output channel; without a gradient."""
    magnitude = w.detach().abs()
    largest = magnitude.amax(tuple(range(1, w.ndim)), keepdim=True) if per_channel else magnitude.amax()
    return w.detach().sign() * (magnitude > threshold * largest)


def ttq(w: Tensor, positive: Tensor, negative: Tensor, threshold: float = TTQ_THRESHOLD, *, per_channel: bool = False) -> Quantized:
    """Ternary codes with a scale for +1 and another for -1.

    Forward: ``codes = sign(w) * 1[|w| > threshold * max|w|]``, whose values are ``positive``, 0 and ``-negative``. Backward, for the gradient g of the values:
    ``g_w = g * (positive, 1 or negative)`` where the code is +1, 0 or -1; ``g_positive = sum of g`` where it is +1; ``g_negative = -sum of g`` where it is -1.

    As printed, the paper's equation 7 has no minus in front of the last sum; the derivative of ``-negative`` has, and so has the released code.

    Parameters
    ----------
    w : Tensor
        Of shape ``(O, ..)``.
    positive, negative : float32 Tensor
        Positive, both of shape ``()``, or ``(O, 1, ..)`` with ``per_channel``.
    threshold : float
        In units of the largest magnitude.
    per_channel : bool
        Whether each output channel has a largest magnitude of its own.

    Returns
    -------
    Quantized
        Its ``scale`` is that of the codes +1, its ``negative`` that of -1.

    References
    ----------
    Zhu et al., Trained Ternary Quantization, arXiv 1612.01064, equations 6 to 9.
    """
    codes = ttq_codes(w, threshold, per_channel=per_channel)
    if differentiated(w):
        # a zero's value is its code times `positive`, which the slope takes out again
        codes = straight_through(w, codes, slope=torch.where(codes == 0, positive.detach().reciprocal(), 1.0))
    return Quantized(codes, positive, negative=negative)


@register("ttq")
class TTQWeights(FromWeights):
    """Weights 0, +Wp and -Wn with learned Wp and Wn: `ttq`. In training it costs what other weights do.

    In eval and in a file a layer is two exact sums, of the weights +1 and of the weights -1, one bit each, every one times its own scale: as many bits as ternary weights
    with one scale have, and exact. Wp and Wn follow the weights, as the mean magnitude above the threshold on their side, until the first pass in training, which makes
    them parameters of their own; `lobit.calibrate` chooses the same means, which have the least squared error. Recurrent layers and attention have no place for two scales.

    Parameters
    ----------
    bits : int
        2, the width of the alphabet ``ternary``.
    threshold : float
        In units of the largest magnitude, from 0 to less than 1.
    per_channel : bool
        Whether each output channel has a threshold, a Wp and a Wn of its own; the paper has one of each for a layer.
    """

    two_scales = True

    def __init__(self, bits: int = 2, threshold: float = TTQ_THRESHOLD, per_channel: bool = False) -> None:
        super().__init__()
        check_two_bits(bits, "ttq")
        if not isinstance(threshold, int | float) or not 0 <= threshold < 1 or math.isnan(threshold):
            raise ConfigError(f"quantizer 'ttq' has a threshold from 0 to less than 1 largest magnitudes, not {threshold!r}")
        self.threshold = float(threshold)
        self.per_channel = check_flag(per_channel, "per_channel", "quantizer 'ttq'")
        self.positive = nn.Parameter(torch.ones(()))
        self.negative = nn.Parameter(torch.ones(()))
        self.register_buffer("started", torch.tensor(False))

    @property
    def code_type(self) -> CodeType:
        """``ternary`` of 2 bits."""
        return TERNARY

    def attach(self, weight: Tensor) -> None:
        """Make room for Wp and Wn of each output channel, where they are asked for.

        Raises
        ------
        ConfigError
            When the quantizer belongs to a layer already.
        """
        self._attach_once("scales")
        shape = (weight.shape[0], *[1] * (weight.ndim - 1)) if self.per_channel else ()
        self.positive = nn.Parameter(torch.ones(shape, device=weight.device))
        self.negative = nn.Parameter(torch.ones(shape, device=weight.device))
        self.started = self.started.to(weight.device)

    def forward(self, x: Tensor) -> Quantized:
        """Codes of weights of shape ``(O, ..)``; scales of shape ``()``, or ``(O, 1, ..)`` for each channel."""
        self._fit(x)
        if not self._is_running() and self.training:
            self._start(x)
        if self.training:
            # a view would forbid moving them in place
            positive, negative = (kept_positive(scale) * 1 for scale in (self.positive, self.negative))
        elif self._running:
            positive, negative = (eval_step(scale, self.owner, "scale") for scale in (self.positive, self.negative))
        else:
            positive, negative = self._means(x)
        return ttq(x, positive, negative, self.threshold, per_channel=self.per_channel)

    def take(self, sample: Sample, method: Method) -> None:
        """Set Wp and Wn for the weights that a sample holds, one row a channel; no method betters their means."""
        self._start(sample.values.reshape(len(sample.values), *[1] * max(self.positive.ndim - 2, 0), -1))

    def keep_in_range(self) -> None:
        """Put scales that the optimizer took to or below 0 back to the smallest."""
        keep_positive(self.positive)
        keep_positive(self.negative)

    @torch.no_grad()
    def _start(self, weight: Tensor) -> None:
        for scale, mean in zip((self.positive, self.negative), self._means(weight), strict=True):
            scale.copy_(mean)
        self.started.fill_(True)
        self._running = True

    @torch.no_grad()
    def _means(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The mean magnitudes above the threshold on either side; float32, positive. A side without weights takes that of the other."""
        codes, magnitude = ttq_codes(weight, self.threshold, per_channel=self.per_channel), wide(weight).abs()
        axes = tuple(range(1 if self.per_channel else 0, weight.ndim))
        sides = [codes > 0, codes < 0]
        counts = [side.sum(axes, keepdim=self.per_channel) for side in sides]
        means = [
            (magnitude * side).sum(axes, keepdim=self.per_channel) / count.clamp(min=1) for side, count in zip(sides, counts, strict=True)
        ]
        positive, negative = (
            torch.where(count > 0, mean, other).clamp(min=SMALLEST).float()
            for count, mean, other in zip(counts, means, reversed(means), strict=True)
        )
        return positive, negative
