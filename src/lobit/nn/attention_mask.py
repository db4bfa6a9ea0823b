"""The masks of attention: which keys a query does not see, and what is added to its scores."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lobit.errors import ShapeError
from lobit.quantizers.tracing import traced


def merged_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, sizes: tuple[int, int, int, int], extra: int) -> Tensor | None:
    """Both masks of `torch.nn.MultiheadAttention` as one that broadcasts over (N, H, L, S + extra); the extra keys are always seen.

    Parameters
    ----------
    attn_mask : bool or floating Tensor of shape (L, S) or (N * H, L, S), optional
        True hides a key; floats are added to the scores.
    key_padding_mask : bool or floating Tensor of shape (N, S), optional
    sizes : tuple of int
        N, H, L, S: batch, heads, queries, keys.
    extra : int
        Keys behind the given ones, that the layer adds by itself.

    Returns
    -------
    Tensor or None
        Bool where both are, else floats.

    Raises
    ------
    ShapeError
        For another shape or dtype.
    """
    batch, heads, queries, keys = sizes
    given: list[Tensor] = []
    if attn_mask is not None:
        _check(attn_mask, "attn_mask", (queries, keys), (batch * heads, queries, keys))
        given.append(attn_mask.view(1, 1, queries, keys) if attn_mask.ndim == 2 else attn_mask.view(batch, heads, queries, keys))
    if key_padding_mask is not None:
        _check(key_padding_mask, "key_padding_mask", (batch, keys))
        given.append(key_padding_mask.view(batch, 1, 1, keys))
    if not given:
        return None
    if all(mask.dtype == torch.bool for mask in given):
        merged = given[0] if len(given) == 1 else given[0] | given[1]
    else:
        added = [
            mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask, -math.inf) for mask in given
        ]
        merged = added[0] if len(added) == 1 else added[0] + added[1]
    return F.pad(merged, (0, extra)) if extra else merged


def _check(mask: Tensor, name: str, *allowed: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in allowed or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ShapeError(
            f"{name} is bool or floating, of shape {' or '.join(map(str, allowed))} for this input, not {mask.dtype} of shape {tuple(mask.shape)}"
        )


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the keys, in float32; probabilities of a query that sees no key are all 0.

    There a plain softmax gives NaN, from which no quantizer could take its range.

    Parameters
    ----------
    scores : Tensor of shape (N, H, L, S)
    mask : Tensor, optional
        As `merged_mask` makes it.
    """
    if mask is None:
        return torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))
    hidden = mask if mask.dtype == torch.bool else mask == -math.inf
    blind = hidden.all(-1, keepdim=True)
    some = traced() or bool(blind.any())  # most masks leave each query a key, and cost no pass for this
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(mask & ~blind if some else mask, -math.inf)
    else:
        scores = scores + (mask.masked_fill(blind, 0.0) if some else mask)
    p = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return p.masked_fill(blind, 0.0) if some else p
