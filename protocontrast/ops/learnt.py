"""The contrast with a gradient to its temperature, composed of the logits' operator.

The logits (B, C, P) are held here, which the operator of the contrast never does.
"""

import torch
from torch import Tensor

from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.gradient import kept
from protocontrast.ops.labels import checked_labels
from protocontrast.ops.logits import logits


def _masses(
    labels: Tensor,
    share: Tensor,
    pixel_weight: Tensor | None,
    ignore_index: int,
    function: str,
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


def learnt_contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    similarity: str,
    temperature: Tensor,
    floor: bool,
    ignore_index: int,
    backend: str,
    function: str,
) -> tuple[Tensor, Tensor]:
    """Loss and mass of every pixel and class, each (B, C, P)."""
    if present is None:
        present = torch.ones_like(prototypes[:, 0], dtype=torch.bool)
        if similarity == "cosine":
            present = (prototypes != 0).any(dim=1)
    present = kept(present)
    share = torch.ones_like(prototypes[:, 0], dtype=accumulation_dtype(features))
    if class_weight is not None:
        share = class_weight.to(share.dtype)
    if not floor:
        share = torch.where(present, share, 0)
    mass = _masses(labels, share, pixel_weight, ignore_index, function)
    valid = (mass != 0).any(dim=1, keepdim=True)
    # The gradient of a pixel that is NaN is NaN even where nothing comes back to it.
    read = torch.where(valid, features, 0)
    cosines = logits(read, prototypes, present, similarity, 1.0, backend)
    scores = torch.where(present[:, None], cosines, -1.0 if floor else 0.0) / temperature
    if not floor:
        scores = torch.where(present[:, None], scores, -torch.inf)
    normaliser = torch.where(valid, scores, 0).logsumexp(dim=1, keepdim=True)
    gap = normaliser - torch.where(mass == 0, 0, scores)
    return torch.where(mass == 0, 0, mass * gap), mass
