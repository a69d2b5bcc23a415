"""Cross-entropy of pixels over their similarities to prototypes (M3-M5)."""

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from protocontrast.naive.logits import prototype_logits
from protocontrast.naive.similarity import present_rows


def pixel_prototype_contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    similarity: str,
    temperature: float | Tensor,
    absent: str,
    ignore_index: int,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(M3), (M5) weighted loss and weight of every pixel, each (N,).

    loss_i = w_i sum_c t_ic cw_c (logsumexp_k z_ik - z_ic), where t_i is the one-hot label or the
    soft target. Smoothed, it is (1 - eps) t_ic + eps / C' sum_k t_ik over the C' classes that stand
    in the denominator; the weight stays that of t_i itself.
    """
    num_classes = len(prototypes)
    present = present_rows(prototypes, present, similarity)
    share = torch.ones(num_classes, dtype=features.dtype, device=features.device)
    if class_weight is not None:
        share = class_weight.to(features.dtype)
    if absent == "mask":
        share = torch.where(present, share, 0)
    if labels.is_floating_point():
        targets = labels.to(features.dtype)
    else:
        classes = torch.arange(num_classes, device=labels.device)
        targets = (rearrange(labels, "n -> n 1") == classes).to(features.dtype)
        targets = targets * rearrange(labels != ignore_index, "n -> n 1")

    def weighted(targets: Tensor) -> Tensor:
        mass = torch.where((share == 0) | (targets == 0), 0, targets * share)
        if pixel_weight is None:
            return mass
        weight = rearrange(pixel_weight.to(features.dtype), "n -> n 1")
        return torch.where((weight == 0) | (mass == 0), 0, mass * weight)

    weight = reduce(weighted(targets), "n c -> n", "sum")
    if label_smoothing:
        here = present | (absent == "floor")
        own = torch.where(here, targets, 0)
        each = reduce(own, "n c -> n 1", "sum") / here.sum().clamp_min(1)
        targets = (1 - label_smoothing) * own + label_smoothing * torch.where(here, each, 0)
    targets = weighted(targets)
    valid = reduce(targets, "n c -> n", "sum") != 0
    # The ignored pixels' features may hold NaN, and 0 * NaN is NaN: they leave before any
    # arithmetic.
    readable = torch.where(rearrange(valid, "n -> n 1"), features, 0)
    logits = prototype_logits(readable, prototypes, present, similarity, temperature, absent)
    counted = rearrange(valid, "n -> n 1") & (targets != 0)
    normaliser = torch.logsumexp(torch.where(valid[:, None], logits, 0), dim=1)
    gap = repeat(normaliser, "n -> n c", c=num_classes) - torch.where(counted, logits, 0)
    return reduce(torch.where(counted, targets * gap, 0), "n c -> n", "sum"), weight


def equal_weights(targets: Tensor, shared: Tensor, whole_class: int) -> Tensor:
    """(M18) class weights (C,) from soft targets (N, C): 1 over the pixels, at least `whole_class`.

    Only `shared` classes carry loss.
    """
    counts = reduce(targets, "n c -> c", "sum")
    return torch.where(shared, 1 / counts.clamp_min(whole_class), 0)
