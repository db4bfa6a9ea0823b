"""torch.nn's encoder layer, whose quantized layers run in eval too."""

from __future__ import annotations

from torch import Tensor, nn

from lobit.errors import ConfigError


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer` that always calls the layers in it, once one of them has quantizers; else it is torch's.

    torch's own has a fast path in eval without gradients that reads the weights of its attention and linear layers past the layers themselves: quantizers in them
    would not run. `lobit.quantize_` puts this class in its place. Arguments are torch's; put layers of `lobit.nn` at ``self_attn``, ``linear1`` and ``linear2``
    for quantizers of your own.

    Raises
    ------
    ConfigError
        For nested tensors, which `torch.nn.TransformerEncoder` makes for that fast path alone.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv 1706.03762, section 3.1.
    """

    @property
    def is_quantized(self) -> bool:
        """Whether any layer in it has a quantizer."""
        return any(getattr(layer, "is_quantized", False) for layer in self.modules() if layer is not self)

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Map a tensor of shape (N, L, E), (L, N, E) or (L, E) to one of the same shape; arguments are torch's."""
        if not self.is_quantized:
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        if src.is_nested:
            raise ConfigError(
                "a quantized encoder layer takes no nested tensors; build torch.nn.TransformerEncoder with enable_nested_tensor=False"
            )
        if self.norm_first:
            x = src + self._sa_block(self.norm1(src), src_mask, src_key_padding_mask, is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(src + self._sa_block(src, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._ff_block(x))  # type: ignore[no-any-return]
