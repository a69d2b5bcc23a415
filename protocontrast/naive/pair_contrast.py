"""Contrast between single pixels (M17), a line of it at a time."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import PairContrastCall
from protocontrast.naive.similarity import similarities


def pairs(anchor_labels: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which pairs (A, K) have the same class, and which have two; an ignored row has no pair."""
    own = rearrange(anchor_labels, "a -> a 1")
    labelled = (own != ignore_index) & (labels != ignore_index)
    return labelled & (own == labels), labelled & (own != labels)


def pair_contrast(call: PairContrastCall) -> tuple[Tensor, Tensor]:
    """(M17) weighted loss and weight of every anchor, each (A,)."""
    anchors, ignore_index = call.anchors, call.ignore_index
    positive, negative = pairs(call.anchor_labels, call.key_labels, ignore_index)
    if call.exclude_self:
        positive = positive & ~torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    count = reduce(positive.to(anchors.dtype), "a k -> a", "sum")
    weight = torch.ones_like(count)
    if call.anchor_weight is not None:
        weight = call.anchor_weight.to(count.dtype)
    weight = torch.where(count == 0, 0, weight)

    # Rows that take no part may hold NaN, and 0 * NaN is NaN: they leave before any arithmetic.
    def scores(rows: Tensor, labels: Tensor) -> Tensor:
        read = torch.where(rearrange(weight != 0, "a -> a 1"), anchors, 0)
        rows = torch.where(rearrange(labels != ignore_index, "k -> k 1"), rows, 0)
        return similarities(read, rows, call.similarity) / call.temperature

    score = opposed = scores(call.keys, call.key_labels)
    if call.negatives is not None and call.negative_labels is not None:
        _, negative = pairs(call.anchor_labels, call.negative_labels, ignore_index)
        opposed = scores(call.negatives, call.negative_labels)
    if call.all_in_denominator:
        opposed, negative = torch.cat([score, opposed], 1), torch.cat([positive, negative], 1)
    unopposed = ~negative.any(dim=1)
    # log 0 has no gradient, so a row without negatives takes the log-sum-exp of other numbers.
    read = negative | rearrange(unopposed, "a -> a 1")
    lse = torch.logsumexp(torch.where(read, opposed, -torch.inf), dim=1)
    lse = torch.where(unopposed, -torch.inf, lse)
    gap = rearrange(lse, "a -> a 1") - score
    if not call.all_in_denominator:
        gap = torch.nn.functional.softplus(gap, threshold=50)  # -log(e^s / (e^s + e^L))
    total = reduce(torch.where(positive, gap, 0), "a k -> a", "sum")
    return torch.where(weight == 0, 0, weight * total / torch.where(count == 0, 1, count)), weight
