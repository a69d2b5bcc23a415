"""Targets and weights in plain torch: a mass per pixel and class, held whole."""

import torch
from torch import Tensor

from protocontrast.ops.labels import checked_labels


def present_classes(prototypes: Tensor, present: Tensor | None, similarity: str) -> Tensor:
    """(C,) the given presence, else every row, except all-zero rows under cosine."""
    if present is not None:
        return present
    if similarity == "cosine":
        return (prototypes != 0).any(dim=1)
    return torch.ones_like(prototypes[:, 0], dtype=torch.bool)


def counted_share(
    present: Tensor, class_weight: Tensor | None, floor: bool, dtype: torch.dtype
) -> Tensor:
    """(C,) the classes' weights; 0 for an absent one, unless it stays in at the floor."""
    share = torch.ones_like(present, dtype=dtype)
    if class_weight is not None:
        share = class_weight.to(dtype)
    return share if floor else torch.where(present, share, 0)


def masses(
    labels: Tensor, share: Tensor, pixel_weight: Tensor | None, ignore_index: int, function: str
) -> Tensor:
    """(M3), (M5) mass w_i t_ic v_c with which pixels are pulled to classes, (B, C, P)."""
    each = share[:, None]
    if labels.is_floating_point():
        soft = labels.to(share.dtype)
        mass = torch.where((each == 0) | (soft == 0), 0, soft * each)
    else:
        labels = checked_labels(labels, len(share), ignore_index, function).long()[:, None]
        classes = torch.arange(len(share), device=labels.device)[:, None]
        mass = torch.where(labels == classes, each, 0)
        # A value that is no class was refused on CPU; here it must not pass for one.
        mass = torch.where((labels < 0) | (labels >= len(share)), torch.nan, mass)
        mass = torch.where(labels == ignore_index, 0, mass)
    if pixel_weight is None:
        return mass
    weight = pixel_weight.to(share.dtype)[:, None]
    return torch.where((weight == 0) | (mass == 0), 0, mass * weight)
