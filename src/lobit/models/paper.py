"""The paper's nets: product, pooling, batch norm, hard tanh, and the next layer's quantizer on its own input.

Weights of every layer, the first and last too, have the given bits and latent values in [-1, 1]; the first layer's input has 8 bits. Batch norm follows
the last layer too, and its output are the logits. Sources: arXiv 1609.07061 and its released Theano code.

With ``batch_norm="shift"`` the hidden layers have the shift-based one of the released Torch code; the last keeps the ordinary one, as there. Bits of gradients
are DoReFa's form in every layer: the paper's own scaling is not published.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from lobit import nn as lnn
from lobit.bits import FLOAT_BITS, Bits
from lobit.errors import ConfigError
from lobit.models.registry import register
from lobit.optim import init_latent_weights
from lobit.quantizers import ActivationQuantizer, CodeDropout, DoReFaGradients, LinearQuant, LinearQuantWeights, StochasticSign

EPS = 1e-4
FIRST_INPUT_BITS = 8
BatchNorm = Literal["ordinary", "shift"]


def _quantizers(bits: Bits, *, first: bool = False, dropout: float = 0.0, stochastic: bool = False) -> dict[str, Any]:
    """LinearQuant on both sides; one bit of it is the plain sign, or in training a random one. Dropout of the input acts on its codes."""
    width = FIRST_INPUT_BITS if first and bits.activations != FLOAT_BITS else bits.activations
    inputs: ActivationQuantizer | None = (
        None if width == FLOAT_BITS else StochasticSign() if stochastic and width == 1 else LinearQuant(width)
    )
    return {
        "weight_quantizer": None if bits.weights == FLOAT_BITS else LinearQuantWeights(bits.weights),
        "input_quantizer": CodeDropout(inputs, dropout) if inputs is not None and dropout else inputs,
        "gradient_quantizer": None if bits.gradients == FLOAT_BITS else DoReFaGradients(bits.gradients),
    }


def _norm(kind: BatchNorm, channels: int, rank: int) -> nn.Module:
    if kind not in ("ordinary", "shift"):
        raise ConfigError(f"batch_norm of a model is 'ordinary' or 'shift', not {kind!r}")
    if kind == "shift":
        return (lnn.ShiftBatchNorm1d if rank == 1 else lnn.ShiftBatchNorm2d)(channels)
    return (lnn.BatchNorm1d if rank == 1 else lnn.BatchNorm2d)(channels, eps=EPS)


def _linear(
    bits: Bits,
    inputs: int,
    outputs: int,
    *,
    first: bool = False,
    dropout: float = 0.0,
    batch_norm: BatchNorm = "ordinary",
    stochastic: bool = False,
) -> list[nn.Module]:
    """Dropout of the input, the product, batch norm."""
    outside = [nn.Dropout(dropout)] if dropout and bits.activations == FLOAT_BITS else []
    product = lnn.Linear(inputs, outputs, bias=False, **_quantizers(bits, first=first, dropout=dropout, stochastic=stochastic))
    return [*outside, product, _norm(batch_norm, outputs, 1)]


def _mlp(bits: Bits, hidden: int, input_dropout: float, dropout: float, batch_norm: BatchNorm, *, stochastic: bool = False) -> nn.Module:
    first = _linear(bits, 784, hidden, first=True, dropout=input_dropout, batch_norm=batch_norm)
    layers: list[nn.Module] = [nn.Flatten(), *first, nn.Hardtanh()]
    for _ in range(2):
        layers += [*_linear(bits, hidden, hidden, dropout=dropout, batch_norm=batch_norm, stochastic=stochastic), nn.Hardtanh()]
    model = nn.Sequential(*layers, *_linear(bits, hidden, 10, dropout=dropout, stochastic=stochastic))
    init_latent_weights(model)
    return model


@register("mnist-mlp", input_shape=(1, 28, 28), num_classes=10, description="the paper's MNIST net, 3 x 4096; inputs in [-1, 1]")
def mnist_mlp(bits: Bits, *, input_dropout: float = 0.2, dropout: float = 0.5, batch_norm: BatchNorm = "ordinary") -> nn.Module:
    """784 - 4096 - 4096 - 4096 - 10 with dropout as in the released code."""
    return _mlp(bits, 4096, input_dropout, dropout, batch_norm)


@register("mnist-mlp-small", input_shape=(1, 28, 28), num_classes=10, description="the paper's MNIST net with 3 x 1024, without dropout")
def mnist_mlp_small(bits: Bits, *, input_dropout: float = 0.0, dropout: float = 0.0, batch_norm: BatchNorm = "ordinary") -> nn.Module:
    """784 - 1024 - 1024 - 1024 - 10."""
    return _mlp(bits, 1024, input_dropout, dropout, batch_norm)


@register(
    "mnist-mlp-torch",
    input_shape=(1, 28, 28),
    num_classes=10,
    description="the paper's MNIST net of its Torch runs, 3 x 2048: random signs in training, shift-based batch norm; inputs in [-1, 1]",
)
def mnist_mlp_torch(bits: Bits, *, hidden: int = 2048, stochastic: bool = True, batch_norm: BatchNorm = "shift") -> nn.Module:
    """784 - 2048 - 2048 - 2048 - 10 without dropout; one-bit activations are random in training, and signs in eval."""
    return _mlp(bits, hidden, 0.0, 0.0, batch_norm, stochastic=stochastic)


@register("cifar10-convnet", input_shape=(3, 32, 32), num_classes=10, description="the paper's CIFAR-10 net; inputs in [-1, 1]")
def cifar10_convnet(bits: Bits, *, batch_norm: BatchNorm = "ordinary") -> nn.Module:
    """(2 x 128C3) - MP2 - (2 x 256C3) - MP2 - (2 x 512C3) - MP2 - (2 x 1024FC) - 10; 3x3, stride 1, zero padding 1."""
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate((128, 128, 256, 256, 512, 512)):
        layers.append(lnn.Conv2d(channels, width, 3, padding=1, bias=False, **_quantizers(bits, first=index == 0)))
        layers += [nn.MaxPool2d(2)] if index % 2 else []
        layers += [_norm(batch_norm, width, 2), nn.Hardtanh()]
        channels = width
    layers.append(nn.Flatten())
    for inputs in (512 * 4 * 4, 1024):
        layers += [*_linear(bits, inputs, 1024, batch_norm=batch_norm), nn.Hardtanh()]
    model = nn.Sequential(*layers, *_linear(bits, 1024, 10))
    init_latent_weights(model)
    return model
