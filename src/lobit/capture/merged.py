"""Codes that the model pads ahead of a convolution, and the file inside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lobit.capture.layers import conv_attrs_of
from lobit.format import Graph


def without_merged_padding(graph: Graph, name: str, layer: nn.Module, codes: NDArray[np.int16]) -> NDArray[np.int16]:
    """The codes of a layer's input as the file has them.

    Where `lobit.capture.passes.pad_into_layer` gave a convolution padding that the model applies by itself, the model's codes have that border and the file's do
    not. It is cut off if all of it is real 0; codes of any other shape are returned as they are.

    Parameters
    ----------
    graph : Graph
    name : str
        Of the codes in the graph.
    layer : nn.Module
        That reads them.
    codes : ndarray of shape (N, C, H, W) or (N, C, L)
        Of the model.
    """
    kind = graph.types[name]
    reader = next((node for node in graph.nodes if node.op == "conv2d" and name in node.inputs), None)
    if reader is None or codes.shape[1:] == kind.shape or codes.ndim != len(kind.shape) + 1:
        return codes
    own = conv_attrs_of(layer)["padding"]
    top, left, bottom, right = (more - less for more, less in zip(reader.attrs["padding"], own, strict=True))
    inside: list[Any] = [slice(start, size - end) for start, end, size in zip((top, left), (bottom, right), _size(codes), strict=True)]
    cut = codes[(..., *inside[3 - len(kind.shape) :])]
    border = np.ones(codes.shape, bool)
    border[(..., *inside[3 - len(kind.shape) :])] = False
    return cut if min(top, left, bottom, right) >= 0 and cut.shape[1:] == kind.shape and (codes[border] == kind.zero).all() else codes


def _size(codes: NDArray[np.int16]) -> tuple[int, int]:
    return (codes.shape[-2] if codes.ndim == 4 else 1), codes.shape[-1]
