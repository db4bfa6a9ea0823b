"""Where accuracy is lost: what quantization changes in the output of each layer, and what the network would gain if that layer alone were float.

Two questions, two measures.

*How much of a layer's output does quantization destroy?* On the input that the layer has in the eval network, its output ``q`` as quantized is compared with
the output ``y`` that its float (latent) weights give on its float input. Batch norm, or the next layer's scale, takes any factor and offset of a channel
away, so they must not count as error. For each output channel, over samples and positions, the error is the share of the variance of ``y`` that the best
line in ``q`` leaves unexplained:

    error = min over a, b of mean (y - a q - b)^2 / var y  =  1 - r^2,    r = cov(y, q) / sqrt(var y var q)

0 where the quantized output orders and spaces things as the float one does, 1 where it tells nothing about it. A layer's error is the mean over its channels,
because batch norm gives each of them the same weight; channels whose float output does not vary carry nothing and are left out (`LayerError.silent`).
The same with the weights alone quantized, and the input alone, says on which side bits are missing.

*Does the network need what was destroyed?* A large error need not cost accuracy: training may have arranged itself with it. So each layer in turn is put back
to float, its output shifted and scaled per channel to the mean and deviation of the quantized one (which is what batch norm would do after estimating its
statistics anew), and the test images that this turns from wrong to right, and from right to wrong, are counted. Only the difference of the two
counts beyond chance says that bits spent on this layer are likely to pay; training again with them has the last word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lobit.errors import ShapeError
from lobit.nn import QuantizedLayer
from lobit.nn.conv_transpose import ConvTransposeLayer
from lobit.report.moments import Moments

BATCH = 250


@dataclass(frozen=True, slots=True)
class Gain:
    """What one layer in float does to the network's answers.

    Parameters
    ----------
    mended, broken : int
        Samples that become right, and that become wrong.
    samples : int
    """

    mended: int
    broken: int
    samples: int

    @property
    def accuracy(self) -> float:
        """Change of the accuracy, a share: positive where quantizing the layer costs accuracy."""
        return (self.mended - self.broken) / self.samples if self.samples else 0.0

    @property
    def chance(self) -> float:
        """Probability of so uneven a split, or a more uneven one, of the changed answers by coin tosses (two-sided sign test).

        References
        ----------
        McNemar, Note on the sampling error of the difference between correlated proportions, 1947; here its exact form.
        """
        changed, fewer = self.mended + self.broken, min(self.mended, self.broken)
        tail: int = sum(math.comb(changed, k) for k in range(fewer + 1))
        return min(1.0, float(Fraction(tail, 2 ** (changed - 1))) if changed else 1.0)


@dataclass(frozen=True, slots=True)
class LayerError:
    """The error of one quantized layer, means over its channels: shares from 0 to 1 as `lobit.report.layer_error` defines them.

    Parameters
    ----------
    name : str
        The module's path.
    weights, input, both : float
        With the weights alone quantized, with the input alone, and as the network runs.
    worst : float
        The largest error of a channel as the network runs.
    channels, silent : int
        Output channels, and those of them that do not vary in float.
    gain : Gain or None
        What the network would gain, where labels were given.
    """

    name: str
    weights: float
    input: float
    both: float
    worst: float
    channels: int
    silent: int
    gain: Gain | None = None


def layer_errors(model: nn.Module, x: Tensor, labels: Tensor | None = None, batch_size: int = BATCH) -> tuple[LayerError, ...]:
    """The error of every quantized layer that runs, in the order they first run; the model is left as it was.

    Parameters
    ----------
    model : nn.Module
        With `lobit.nn` layers; it is measured in eval mode. A layer that runs several times is measured over all of them.
    x : Tensor of shape (N, ...)
        Its input.
    labels : int64 Tensor of shape (N,), optional
        With them each row has its `Gain`, for one more pass over ``x`` a layer.
    batch_size : int
        Samples that run at once; the result does not depend on it but for rounding.

    Raises
    ------
    ShapeError
        For fewer than two samples, which have no variance, or labels of another number.
    """
    if len(x) < 2 or batch_size < 1:
        raise ShapeError(
            f"{len(x)} samples in batches of {batch_size}; the error of a layer needs at least two samples, and batches of at least 1"
        )
    if labels is not None and labels.shape != (len(x),):
        raise ShapeError(f"the labels have shape {tuple(labels.shape)}; {len(x)} samples need ({len(x)},)")
    names = {module: path for path, module in model.named_modules() if _is_measured(module)}
    moments: dict[QuantizedLayer, _Three] = {}
    with _evaluating(model), _hooked({layer: partial(_compare, moments) for layer in names}):
        right = _right(model, x, labels, batch_size)
        rows = [_row(names[layer], found) for layer, found in moments.items()]
    if labels is None:
        return tuple(rows)
    gained = []
    with _evaluating(model):
        for (layer, found), row in zip(moments.items(), rows, strict=True):
            with _hooked({layer: partial(_in_float, found.both)}):
                now = _right(model, x, labels, batch_size)
            gained.append(replace(row, gain=Gain(int((now & ~right).sum()), int((right & ~now).sum()), len(x))))
    return tuple(gained)


def _is_measured(module: nn.Module) -> TypeGuard[QuantizedLayer]:
    """An embedding makes no sums, so it has no error of its own here."""
    return isinstance(module, QuantizedLayer) and module.is_quantized and not isinstance(module, nn.Embedding)


@dataclass(slots=True)
class _Three:
    """Moments of the float output with each of the three quantized ones."""

    weights: Moments
    input: Moments
    both: Moments


def _compare(moments: dict[QuantizedLayer, _Three], layer: QuantizedLayer, args: Any, named: Mapping[str, Any], output: Tensor) -> None:
    """Hook: add what one call of a layer made to its moments."""
    x = _input(args, named)
    product = _product(layer, x, output)
    weight, read = _dequantized(layer, x)
    latent = layer.rows(layer.weight)
    y = product(layer.pad(x), latent)
    found = moments.get(layer)
    if found is None:
        channels = len(latent)
        found = moments[layer] = _Three(Moments(channels), Moments(channels), Moments(channels))
    flat = partial(_by_channel, layer)
    exact = flat(y)
    found.weights.add(exact, flat(product(layer.pad(x), weight)))
    found.input.add(exact, flat(product(read, latent)))
    found.both.add(exact, flat(output))


def _in_float(moments: Moments, layer: QuantizedLayer, args: Any, named: Mapping[str, Any], output: Tensor) -> Tensor:
    """Hook: the layer's float output with the mean and deviation of the quantized one, channel by channel; one that does not vary keeps its mean."""
    x = _input(args, named)
    y = _product(layer, x, output)(layer.pad(x), layer.rows(layer.weight))
    factor = torch.where(moments.varies, (moments.var_q / moments.var_y.clamp(min=torch.finfo(torch.float64).tiny)).sqrt(), 0.0)
    shift = moments.mean_q - moments.mean_y * factor
    return (y.double() * layer.per_channel(factor) + layer.per_channel(shift)).to(output.dtype)


def _input(args: Any, named: Mapping[str, Any]) -> Tensor:
    """What a layer was called with, by its place or by torch's name for it."""
    x: Tensor = args[0] if args else named["input"]
    return x


def _product(layer: QuantizedLayer, x: Tensor, output: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The layer's linear map, to an output of the size that this call made: transposed convolutions can be asked for several."""
    if not isinstance(layer, ConvTransposeLayer):
        return layer.product
    return partial(layer.product, output_padding=layer.padding_for(x, output.shape[-len(layer.kernel_size) :]))


def _dequantized(layer: QuantizedLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the codes of the weights and of the input stand for; a side without quantizer as it is."""
    weight = layer.quantized_weight()
    latent = layer.rows(layer.weight) if weight is None else weight.values()
    return latent, x if layer.input_quantizer is None else layer.quantized_input(x).values()


def _by_channel(layer: QuantizedLayer, values: Tensor) -> Tensor:
    """Outputs as (channels, all the rest)."""
    moved = values.movedim(layer.channel_axis, 0)
    return moved.reshape(len(moved), -1)


def _row(name: str, found: _Three) -> LayerError:
    varies = found.both.varies
    shares = [part.unexplained[varies] if bool(varies.any()) else torch.zeros(1) for part in (found.weights, found.input, found.both)]
    weights, read, both = (float(share.mean()) for share in shares)
    return LayerError(name, weights, read, both, float(shares[2].max()), len(varies), int((~varies).sum()))


@torch.inference_mode()
def _right(model: nn.Module, x: Tensor, labels: Tensor | None, batch_size: int) -> Tensor:
    """Run all of ``x``; which samples are answered rightly, none where there are no labels."""
    answers = torch.cat([model(rows).flatten(1).argmax(1) for rows in torch.split(x, batch_size)])
    return torch.zeros(len(x), dtype=torch.bool) if labels is None else answers == labels


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and each module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _hooked(hooks: dict[QuantizedLayer, Any]) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
