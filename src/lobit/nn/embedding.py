"""A table of rows looked up by index."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.quantized import QuantizedLayer
from lobit.quantizers import ActivationQuantizer, GradientQuantizer, WeightQuantizer, get
from lobit.quantizers.registry import Identifier


class Embedding(QuantizedLayer, nn.Embedding):
    """`torch.nn.Embedding` with a quantized table; without a quantizer it is torch's layer.

    Forward: ``codes[i] * scale[i]``, or ``codes[i] * scale`` where the quantizer has one scale for the table: one float operation a value, in eval
    on codes that are kept. Backward: that of a lookup in the quantized table. In training the whole table is quantized at every step, and its gradient
    is dense.

    Parameters
    ----------
    num_embeddings, embedding_dim, padding_idx, scale_grad_by_freq
        As torch's. The row of ``padding_idx`` gets no gradient, nor does its scale; it is quantized as all others, so that with codes
        -1/+1 and one scale for the table it is not zero.
    max_norm, norm_type, sparse
        As torch's, without a quantizer only.
    weight_quantizer : None, str, dict, callable or Quantizer
        As `lobit.quantizers.get` takes it. A scale per output channel is one for each row.
    **kwargs
        As torch's.

    Raises
    ------
    ConfigError
        For ``max_norm`` or ``sparse`` together with a quantizer; for a quantizer of inputs or gradients.

    Examples
    --------
    >>> import torch
    >>> table = Embedding(100, 8, padding_idx=0, weight_quantizer={"name": "lsq", "bits": 4})
    >>> table(torch.tensor([[3, 7, 0]])).shape
    torch.Size([1, 3, 8])
    """

    num_embeddings: int
    padding_idx: int | None
    max_norm: float | None
    scale_grad_by_freq: bool
    sparse: bool
    bias = None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        weight_quantizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        nn.Embedding.__init__(self, num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, **kwargs)
        self.set_quantizers(get(weight_quantizer, "weights"), None)

    def set_quantizers(
        self,
        weight_quantizer: WeightQuantizer | None,
        input_quantizer: ActivationQuantizer | None = None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        """Attach a quantizer of the table; None leaves it in float."""
        if input_quantizer is not None or gradient_quantizer is not None:
            raise ConfigError("an embedding looks rows up and multiplies nothing: it takes a weight_quantizer alone")
        if weight_quantizer is not None and self.max_norm is not None:
            raise ConfigError(f"max_norm={self.max_norm} changes rows as they are read, under the quantizer; use max_norm=None")
        if weight_quantizer is not None and self.sparse:
            raise ConfigError("sparse=True asks for a sparse gradient, and a quantized table has a dense one; use sparse=False")
        super().set_quantizers(weight_quantizer, None, None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, for calls by keyword
        """Rows of the table, of shape (.., embedding_dim), for integer indices of shape (..)."""
        self._check_dtype()
        table = self.quantized_weight()
        if table is None:
            return nn.Embedding.forward(self, input)
        if table.negative is not None:
            return self._rows_at(input, table.values())
        return self._rows_at(input, table.codes) * self._rows_at(input, table.scale.expand(self.num_embeddings, 1))

    def _rows_at(self, index: Tensor, table: Tensor) -> Tensor:
        return F.embedding(index, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
