"""Hard or soft targets, smoothed over the classes that there are."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.masses import counted_share, masses, present_classes


class Smoothed(NamedTuple):
    """Soft targets (B, C, P), and the summed weight () of what they were made from."""

    targets: Tensor
    weight: Tensor


def smoothed(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    similarity: str,
    floor: bool,
    ignore_index: int,
    label_smoothing: float,
    function: str,
) -> Smoothed:
    """(M3) (1 - eps) t_ic + eps / C' sum_k t_ik, k and c among the C' classes that count."""
    there = present_classes(prototypes, present, similarity)
    dtype = accumulation_dtype(features)
    here = torch.ones_like(there, dtype=dtype) if floor else there.to(dtype)
    own = masses(labels, here, None, ignore_index, function)
    each = own.sum(dim=1, keepdim=True) / here.sum().clamp_min(1)
    targets = (1 - label_smoothing) * own + label_smoothing * each * here[:, None]
    share = counted_share(there, class_weight, floor, dtype)
    weight = masses(labels, share, pixel_weight, ignore_index, function)
    return Smoothed(targets, weight.sum())
