"""Contrast between pixels, the usual way: all pairs at once, or by another library's losses.

Rows (N, D) and labels (N,) of classes, each row an anchor and a key; no label is ignored.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc

TEMPERATURE = 0.1

Loss = Callable[[Tensor, Tensor], Tensor]


def streamed(rows: Tensor, labels: Tensor, backend: str = "auto") -> Tensor:
    """The library's."""
    return pc.pair_contrast(
        rows, labels, rows, labels, exclude_self=True, temperature=TEMPERATURE, backend=backend
    )


def streamed_all(rows: Tensor, labels: Tensor, backend: str = "auto") -> Tensor:
    """The library's, with every positive in each sum."""
    return pc.pair_contrast(
        rows, labels, rows, labels, exclude_self=True, temperature=TEMPERATURE, denominator="all",
        backend=backend,
    )  # fmt: skip


def _pairs(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all pairs, which of them are positive, and which are of an anchor with itself."""
    units = F.normalize(rows, dim=1)
    scores = units @ units.t() / TEMPERATURE
    itself = torch.eye(len(rows), dtype=torch.bool)
    return scores, (labels[:, None] == labels) & ~itself, itself


def _mean_over_positives(terms: Tensor, positive: Tensor) -> Tensor:
    each = torch.where(positive, terms, 0).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
    used = positive.any(dim=1)
    return each.sum() / used.sum().clamp_min(1)


def dense(rows: Tensor, labels: Tensor) -> Tensor:
    """What a user would write: all pairs at once, and autograd."""
    scores, positive, itself = _pairs(rows, labels)
    rivals = scores.masked_fill(positive | itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    return _mean_over_positives(F.softplus(rivals - scores), positive)


def dense_all(rows: Tensor, labels: Tensor) -> Tensor:
    """The same with every positive in each sum."""
    scores, positive, itself = _pairs(rows, labels)
    total = scores.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    return _mean_over_positives(total - scores, positive)


def ntxent(rows: Tensor, labels: Tensor) -> Tensor:
    """NTXentLoss of pytorch-metric-learning: the mean over pairs, ours where classes are equal."""
    from pytorch_metric_learning.losses import NTXentLoss

    found: Tensor = NTXentLoss(temperature=TEMPERATURE)(rows, labels)
    return found


def supcon(rows: Tensor, labels: Tensor) -> Tensor:
    """SupConLoss of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import SupConLoss

    found: Tensor = SupConLoss(temperature=TEMPERATURE)(rows, labels)
    return found


OPTIONAL: dict[str, Loss] = {"PML SupConLoss": supcon}
"""Of a library that `make bench` installs; its NTXentLoss has no room at these sizes."""


def pair_peers() -> dict[str, Loss]:
    """Those that can be imported here, by the name a table shows."""
    return OPTIONAL if find_spec("pytorch_metric_learning") is not None else {}
