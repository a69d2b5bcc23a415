"""Contrast between single pixels (M17), a line of it at a time."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.naive.similarity import similarities


def pairs(anchor_labels: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which pairs (A, K) have the same class, and which have two; an ignored row has no pair."""
    own = rearrange(anchor_labels, "a -> a 1")
    labelled = (own != ignore_index) & (labels != ignore_index)
    return labelled & (own == labels), labelled & (own != labels)


def pair_contrast(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    negatives: Tensor | None,
    negative_labels: Tensor | None,
    anchor_weight: Tensor | None,
    similarity: str,
    temperature: float | Tensor,
    denominator: str,
    exclude_self: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """(M17) weighted loss and weight of every anchor, each (A,)."""
    positive, rival = pairs(anchor_labels, key_labels, ignore_index)
    if exclude_self:
        positive = positive & ~torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    count = reduce(positive.to(anchors.dtype), "a k -> a", "sum")
    weight = torch.ones_like(count) if anchor_weight is None else anchor_weight.to(count.dtype)
    weight = torch.where(count == 0, 0, weight)

    # Rows that take no part may hold NaN, and 0 * NaN is NaN: they leave before any arithmetic.
    def scores(rows: Tensor, labels: Tensor) -> Tensor:
        read = torch.where(rearrange(weight != 0, "a -> a 1"), anchors, 0)
        rows = torch.where(rearrange(labels != ignore_index, "k -> k 1"), rows, 0)
        return similarities(read, rows, similarity) / temperature

    score = opposed = scores(keys, key_labels)
    if negatives is not None and negative_labels is not None:
        _, rival = pairs(anchor_labels, negative_labels, ignore_index)
        opposed = scores(negatives, negative_labels)
    if denominator == "all":
        opposed, rival = torch.cat([score, opposed], 1), torch.cat([positive, rival], 1)
    unopposed = ~rival.any(dim=1)
    # log 0 has no gradient, so a row without rivals takes the log-sum-exp of other numbers first.
    read = rival | rearrange(unopposed, "a -> a 1")
    normaliser = torch.logsumexp(torch.where(read, opposed, -torch.inf), dim=1)
    normaliser = torch.where(unopposed, -torch.inf, normaliser)
    gap = rearrange(normaliser, "a -> a 1") - score
    if denominator == "negatives":
        gap = torch.nn.functional.softplus(gap, threshold=50)  # -log(e^s / (e^s + e^L))
    total = reduce(torch.where(positive, gap, 0), "a k -> a", "sum")
    return torch.where(weight == 0, 0, weight * total / torch.where(count == 0, 1, count)), weight
