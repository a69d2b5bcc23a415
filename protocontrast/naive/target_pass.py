"""Labels, class sums and contrast of the target, one after the other."""

import torch
from torch import Tensor

from protocontrast.naive.class_prototypes import class_sums
from protocontrast.naive.contrast import pixel_prototype_contrast
from protocontrast.naive.transfer import fuse_labels, transfer_labels


def target_pass(
    features: Tensor,
    static: Tensor | None,
    targets: Tensor | None,
    filling: Tensor | None,
    prototypes: Tensor,
    nearest: Tensor,
    present: Tensor,
    counted: Tensor,
    threshold: Tensor,
    measure: str,
    temperature: float | Tensor,
    absent: str,
    normalize: bool,
    ignore_index: int,
    transfer: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """(M6) from `nearest`, (M7), (M1) and (M3) of the fused labels, the last summed per class.

    Soft `targets` (N, C) take the fused labels' place in the contrast, (M5); where they are 0 for
    all classes, the transferred label counts with a mass of `filling` (N,), or 1.

    Fused labels and measure (N,), loss (C,) of the `counted` classes, sums (C, D), counts (C,), and
    the soft targets of the contrast.
    """
    labels, value = transfer_labels(
        features, nearest, present, threshold, measure, "cosine", temperature, ignore_index
    )
    if not transfer:
        labels, value = torch.full_like(labels, ignore_index), torch.zeros_like(value)
    classes = torch.arange(len(prototypes), device=labels.device)
    if targets is not None:
        moved = (labels[:, None] == classes).to(targets.dtype)
        if filling is not None:
            moved = moved * filling[:, None].to(targets.dtype)
        targets = torch.where((targets.sum(dim=1) == 0)[:, None], moved, targets)
    if static is not None:
        labels = fuse_labels(static, labels, ignore_index)
    pulled_to = labels if targets is None else targets
    losses = []
    for c in range(len(prototypes)):
        loss, _ = pixel_prototype_contrast(
            features, pulled_to, prototypes, present, counted & present & (classes == c), None,
            "cosine", temperature, absent, ignore_index,
        )  # fmt: skip
        losses.append(loss.sum())
    sums, counts = class_sums(features, labels, len(prototypes), None, normalize, ignore_index)
    return labels, value, torch.stack(losses), sums, counts, targets
