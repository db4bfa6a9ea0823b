"""Multi-head attention: torch.nn's with quantized projections, queries, keys, values and probabilities."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError
from lobit.nn.attention_mask import masked_softmax, merged_mask
from lobit.nn.attention_quantizers import INPUTS, PROBABILITY, AttentionQuantizers, Operand
from lobit.nn.linear import Linear
from lobit.nn.several_products import AS_INPUT
from lobit.quantizers import Quantized
from lobit.quantizers.registry import Identifier


class MultiheadAttention(AttentionQuantizers, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with quantizers of all that it multiplies; without quantizers it is torch's layer.

    Forward, for each head of d features, S keys and sums of codes: ``q = sum(x_q, w_q) * scale + b_q``, likewise k and v; ``p = softmax(sum(q, k) *
    (scale_q * scale_k / sqrt(d)))`` over the keys that the masks leave; ``y = sum(p, v) * (scale_p * scale_v)``; then ``out_proj``, a `Linear`. So each of the six
    products multiplies integers. Backward: through each quantizer by its own gradient. In training the codes are kept a byte each; of the probabilities
    their float32 values stay too, which the softmax needs.

    In eval every sum is an exact integer, but the softmax is PyTorch's, in float32. So a code of a probability that stands next to a rounding boundary may
    differ from machine to machine.

    Parameters
    ----------
    embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first
        As torch's. Dropped probabilities are codes 0.
    weight_quantizer, input_quantizer, gradient_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes them. The weights in front share a quantizer where they are one parameter; ``out_proj`` has one of its own. Queries, keys
        and values come into their projections by a quantizer each, even where they are one tensor. The gradients of all six sums are quantized, a
        sample being one element of the batch.
    operand_quantizer : "as_input", None, str, dict, callable or Quantizer
        For what the projections make: queries, keys and values, one each. By default the input's, told that they are signed: see
        `lobit.nn.attention_quantizers.of_operands`.
    probability_quantizer : "as_input", None, str, dict, callable or Quantizer
        For the softmax's result. By default ``lsq`` of the input's width, told that it is non-negative.
    **kwargs
        ``device`` and ``dtype``.

    Notes
    -----
    Where a mask hides every key from a query, its probabilities are 0 (torch's are NaN with ``need_weights``, else 0). With quantizers ``is_causal`` changes nothing:
    the mask that torch asks for beside it is applied. Nested tensors are refused. Parameters keep torch's names.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv 1706.03762, section 3.2; the learned step of signed operands and unsigned probabilities follows Esser et al., arXiv
    1902.08153.

    Examples
    --------
    >>> import torch
    >>> attention = MultiheadAttention(16, 2, batch_first=True, weight_quantizer={"name": "lsq", "bits": 4}, input_quantizer={"name": "lsq", "bits": 4})
    >>> x = torch.randn(3, 5, 16)
    >>> y, weights = attention(x, x, x)
    >>> y.shape, weights.shape, str(attention.operand_quantizers["probability"].code_type)
    (torch.Size([3, 5, 16]), torch.Size([3, 5, 5]), 'unsigned4')
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        weight_quantizer: Identifier = None,
        input_quantizer: Identifier = None,
        gradient_quantizer: Identifier = None,
        operand_quantizer: Identifier = AS_INPUT,
        probability_quantizer: Identifier = AS_INPUT,
        **kwargs: Any,
    ) -> None:
        nn.MultiheadAttention.__init__(
            self, embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, **kwargs
        )
        self.out_proj = linear_of(self.out_proj)
        self.set_quantizers(weight_quantizer, input_quantizer, gradient_quantizer, operand_quantizer, probability_quantizer)

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Torch's note that all projections are one parameter. False with quantizers: a torch.nn.TransformerEncoderLayer around it then calls it, and does not read its weights itself."""
        return bool(vars(self)["_qkv_same_embed_dim"]) and not (self.__dict__.get("_kept") is not None and self.is_quantized)

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, same: bool) -> None:
        vars(self)["_qkv_same_embed_dim"] = same

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are torch's.

        Parameters
        ----------
        query : Tensor of shape (L, N, E), (N, L, E) with ``batch_first``, or (L, E)
        key, value : Tensor of shape (S, N, kdim) and (S, N, vdim), likewise
        key_padding_mask : bool or floating Tensor of shape (N, S), or (S,) without a batch
        need_weights : bool
            Whether to return what the values were multiplied with, too: the quantized probabilities, behind dropout.
        attn_mask : bool or floating Tensor of shape (L, S) or (N * heads, L, S)
        average_attn_weights : bool
            Whether those are averaged over the heads.
        is_causal : bool
            A hint, see the notes.

        Returns
        -------
        tuple
            Of the query's shape, E features; and of shape (N, L, S), or (N, heads, L, S), or None. S counts keys that the layer adds.

        Raises
        ------
        ShapeError
            For shapes that do not fit.
        ConfigError
            For weights of 16 bits, nested tensors, or ``is_causal`` without ``attn_mask``.
        """
        if not self.is_quantized:
            return nn.MultiheadAttention.forward(
                self, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        self.check_dtype(self.out_proj.weight)
        batched = self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise ConfigError("is_causal=True is a hint that attn_mask is causal; give attn_mask, True where a key is hidden, too")
        inputs = self._batch_first([query, key, value], batched)
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        (batch, queries, _), keys = inputs[0].shape, inputs[1].shape[1]
        extra = (self.bias_k is not None) + self.add_zero_attn
        mask = merged_mask(attn_mask, key_padding_mask, (batch, self.num_heads, queries, keys), extra)
        q, k, v = self._heads(inputs)
        p = self._probabilities(masked_softmax(self.multiply(q, k.mapped(lambda x: x.mT), 1.0 / math.sqrt(self.head_dim)), mask))
        y = self.out_proj(self.multiply(p, v).transpose(1, 2).reshape(batch, queries, self.embed_dim))
        weights = None
        if need_weights:
            weights = p.values().mean(1) if average_attn_weights else p.values()
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def _heads(self, inputs: list[Tensor]) -> list[Operand]:
        """Queries, keys and values of shape (N, H, length, d)."""
        projected = []
        for place, x, (weight, bias) in zip(INPUTS, inputs, self.projections(), strict=True):
            y = self.project(self.operand(self.input_quantizers, place, x), weight, bias)
            own = {"key": self.bias_k, "value": self.bias_v}.get(place)
            added = [] if own is None else [own.expand(len(y), 1, -1).to(y.dtype)]
            if self.add_zero_attn and place != "query":
                added.append(y.new_zeros(len(y), 1, self.embed_dim))
            projected.append(torch.cat([y, *added], 1) if added else y)
        operands = [self.operand(self.operand_quantizers, place, y) for place, y in zip(INPUTS, projected, strict=True)]
        return [operand.mapped(lambda x: x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)) for operand in operands]

    def _probabilities(self, p: Tensor) -> Operand:
        """Codes of the probabilities; dropout sets codes to 0 and enlarges the scale."""
        operand = self.operand(self.operand_quantizers, PROBABILITY, p)
        if not self.training or not self.dropout:
            return operand
        left = torch.empty_like(p, dtype=torch.bool).bernoulli_(1.0 - self.dropout)
        if operand.codes is None or operand.codes.offset is not None:
            return Operand(operand.values() * left / (1.0 - self.dropout))
        codes = Quantized(operand.codes.centred() * left, operand.codes.scale / (1.0 - self.dropout))
        return operand._replace(codes=codes)

    def _batch_first(self, inputs: list[Tensor], batched: bool) -> list[Tensor]:
        """Inputs of shape (N, length, features); what is one tensor stays one."""
        if batched and self.batch_first:
            return inputs
        made: dict[int, Tensor] = {}
        for x in inputs:
            if id(x) not in made:
                made[id(x)] = x.transpose(0, 1).contiguous() if batched else x.unsqueeze(0)
        return [made[id(x)] for x in inputs]

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether inputs have a batch axis."""
        if query.is_nested or key.is_nested or value.is_nested:
            raise ConfigError(
                "a quantized MultiheadAttention takes no nested tensors; give padded ones with key_padding_mask, and build torch.nn.TransformerEncoder "
                "with enable_nested_tensor=False"
            )
        widths = (self.embed_dim, self.kdim, self.vdim)
        batch = 0 if self.batch_first else 1
        fits = all(
            x.ndim in (2, 3) and x.ndim == query.ndim and x.shape[-1] == width for x, width in zip((query, key, value), widths, strict=True)
        )
        fits = fits and key.shape[:-1] == value.shape[:-1] and (query.ndim == 2 or query.shape[batch] == key.shape[batch])
        if not fits:
            axes = "(N, L, E)" if self.batch_first else "(L, N, E)"
            raise ShapeError(
                f"query, key and value have shapes {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}; a MultiheadAttention takes {axes} or (L, E), E "
                f"being {', '.join(map(str, widths))}, with one N for all and as many values as keys"
            )
        return query.ndim == 3


def linear_of(layer: nn.Linear) -> Linear:
    """A `Linear` with the parameters of a layer of torch.nn, and its mode."""
    new = Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)  # type: ignore[no-any-return]
