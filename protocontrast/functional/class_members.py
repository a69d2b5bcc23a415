"""Which pixels belong to which class, in arrays whose shapes follow from settings alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.functional.precision import widest


class Members(NamedTuple):
    """Pixels sorted by class: those of class c are `order[start[c] : start[c] + count[c]]`.

    Within a class they keep their order; pixels of no class come last.
    """

    order: Tensor
    start: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count

    def at(self, places: Tensor) -> Tensor:
        """Pixel indices (C, K) of the given places (C, K) in each class; any where there is none.

        Without a single pixel they are all 0.
        """
        last = max(len(self.order) - 1, 0)
        index = (self.start[:, None] + places).clamp(0, last)
        padded = self.order if len(self.order) else self.order.new_zeros(1)
        return padded[index]


def members_of(labels: Tensor, num_classes: int, ignore_index: int) -> Members:
    """Members of every class among flat labels (N,)."""
    classes = torch.arange(num_classes, device=labels.device)
    # A value that is no class was refused on CPU; on a device it belongs to none.
    key = torch.where(labels == ignore_index, num_classes, labels.long())
    key = torch.where((key < 0) | (key > num_classes), num_classes, key)
    ordered, order = torch.sort(key, stable=True)
    start = torch.searchsorted(ordered, classes)
    stop = torch.searchsorted(ordered, classes, right=True)
    return Members(order, start, stop - start)


def spread_out(count: Tensor, picks: Tensor, slots: Tensor, shift: float | Tensor = 0.5) -> Tensor:
    """Places 0 <= place < count of `picks` picks at equal distances; `slots` says which.

    All (C, 1) or (C, K). `shift` in [0, 1) moves all of them within their distance; no two are the
    same where picks <= count.
    """
    distance = widest(count) / picks.clamp_min(1)
    return ((widest(slots) + shift) * distance).long().clamp_min(0)
