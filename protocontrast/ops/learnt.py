"""The contrast with a gradient to its temperature, composed of the logits' operator.

The logits (B, C, P) are held here, which the operator of the contrast never does.
"""

import torch
from torch import Tensor

from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.gradient import kept
from protocontrast.ops.logits import logits
from protocontrast.ops.masses import counted_share, masses, present_classes


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
    there = kept(present_classes(prototypes, present, similarity))
    share = counted_share(there, class_weight, floor, accumulation_dtype(features))
    mass = masses(labels, share, pixel_weight, ignore_index, function)
    valid = (mass != 0).any(dim=1, keepdim=True)
    # The gradient of a pixel that is NaN is NaN even where nothing comes back to it.
    read = torch.where(valid, features, 0)
    cosines = logits(read, prototypes, there, similarity, 1.0, backend)
    scores = torch.where(there[:, None], cosines, -1.0 if floor else 0.0) / temperature
    if not floor:
        scores = torch.where(there[:, None], scores, -torch.inf)
    normaliser = torch.where(valid, scores, 0).logsumexp(dim=1, keepdim=True)
    gap = normaliser - torch.where(mass == 0, 0, scores)
    return torch.where(mass == 0, 0, mass * gap), mass
