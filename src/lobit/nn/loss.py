"""The paper's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SquaredHingeLoss(nn.Module):
    """One-vs-all squared hinge: ``mean over batch and classes of max(0, 1 - t y)^2`` with targets t of +1 for the label's class, else -1.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 6; the released code.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of logits of shape (N, classes) and int64 labels of shape (N,)."""
        targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype) * 2 - 1
        return torch.relu(1 - targets * logits).square().mean()
