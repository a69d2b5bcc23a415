"""What a class weighs in a contrast: as many pixels as it has, or as much as every other class."""

import torch
from torch import Tensor

from protocontrast.functional.maps import class_counts

WHOLE_CLASS = 20
"""Pixels from which on a class weighs as much as any other.

One of fewer counts by its pixels, so that no single pixel, which may be labelled wrongly, is ever
more than a twentieth of a class.
"""


@torch.no_grad()
def target_counts(targets: Tensor, num_classes: int, features: Tensor) -> Tensor:
    """Pixels of each class per image, (B, C), of labels (B, ...) or soft targets (B, C, ...).

    Float32, or float64 for such features.
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    if targets.is_floating_point():
        return targets.flatten(2).sum(dim=2, dtype=dtype)
    return class_counts(targets.flatten(1).long(), num_classes).to(dtype)


def equal_weights(counts: Tensor) -> Tensor:
    """(M18) class weights from the pixels of each class, (..., C)."""
    return counts.clamp_min(WHOLE_CLASS).reciprocal()


def equal_shares(counts: Tensor, shared: Tensor) -> Tensor:
    """(M18) what the summed loss of a class enters the balanced mean with, (..., C).

    Args:
        counts: pixels of each class, (..., C).
        shared: classes that carry loss, (C,) bool.
    """
    weight = torch.where(shared, equal_weights(counts), 0)
    total = (weight * counts).sum(dim=-1, keepdim=True)
    return weight / torch.where(total == 0, 1, total)
