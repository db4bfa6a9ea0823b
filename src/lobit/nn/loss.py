"""The paper's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ShapeError


class SquaredHingeLoss(nn.Module):
    """One-vs-all squared hinge: ``mean over batch and classes of max(0, 1 - t y)^2`` with targets t of +1 for the label's class, else -1.

    It is formed in float32 at least, whatever the dtype of the logits.

    Raises
    ------
    ShapeError
        For logits and labels that do not belong together, which PyTorch would broadcast to another loss in silence; for labels that are no whole numbers;
        for one class, which leaves nothing to tell apart.

    References
    ----------
    Hubara et al., Quantized Neural Networks, arXiv 1609.07061, section 6; the released code.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of logits of shape (N, classes), two classes or more, and integer labels of shape (N,)."""
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ShapeError(
                f"the squared hinge takes logits of shape (N, classes) and labels of shape (N,), not {tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        if logits.shape[1] < 2:
            raise ShapeError("the squared hinge takes two classes or more, not 1; for yes or no give the net two outputs")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ShapeError(f"labels are class numbers of an integer dtype such as torch.int64, not {labels.dtype}")
        targets = F.one_hot(labels.long(), logits.shape[1]).to(torch.promote_types(logits.dtype, torch.float32)) * 2 - 1
        return torch.relu(1 - targets * logits).square().mean()
