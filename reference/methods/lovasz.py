"""The Lovász-Softmax loss: a surrogate of the mean IoU, for ProCA's source."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.data.classes import IGNORE


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes that labels show of sum_k m_k (J_k - J_{k-1}).

    m_1 >= m_2 >= ... are the errors |[y_i = c] - p_ic| of all labelled pixels, and J_k is one minus
    the IoU of class c if the k pixels of the largest errors are wrong and the others right.

    Args:
        logits: of probabilities p.
        labels: classes; 255 is left out.

    Shape:
        logits (B, C, h, w), labels (B, h, w). Result: (), in [0, 1]; 0 with zero gradient where
        nothing has a label.

    Source:
        Berman et al., CVPR 2018, arXiv 1705.08790.

    Example:
        >>> sure = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1)
        >>> [lovasz_softmax(sure, torch.full((1, 1, 1), label)).item() for label in (0, 1, 255)]
        [0.0, 1.0, 0.0]
    """
    kept = labels != IGNORE
    shares, known = logits.softmax(dim=1).movedim(1, -1)[kept], labels[kept]
    losses = [logits.sum() * 0]
    for label in known.unique():
        own = (known == label).to(shares.dtype)
        errors, order = (own - shares[:, label]).abs().sort(descending=True)
        # Pixels of the class that are still right, and those that the class then covers.
        right = own.sum() - own[order].cumsum(dim=0)
        covered = own.sum() + (1 - own[order]).cumsum(dim=0)
        wrong = 1 - right / covered
        losses.append((errors * wrong.diff(prepend=wrong.new_zeros(1))).sum())
    return torch.stack(losses).sum() / max(len(losses) - 1, 1)
