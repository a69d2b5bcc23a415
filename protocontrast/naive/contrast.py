"""Cross-entropy of pixels over their similarities to prototypes (M3-M5)."""

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from protocontrast.calls import ContrastCall, LogitsCall
from protocontrast.naive.similarity import present_rows, prototype_logits


def pixel_prototype_contrast(
    call: ContrastCall, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(M3), (M5) weighted loss and weight of every pixel, each (N,).

    loss_i = w_i sum_c t_ic cw_c (logsumexp_k z_ik - z_ic), where t_i is the one-hot label or the
    soft target. Smoothed, it is (1 - eps) t_ic + eps / C' sum_k t_ik over the C' classes that stand
    in the denominator; the weight stays that of t_i itself.
    """
    features, labels = call.features, call.labels
    num_classes = len(call.prototypes)
    present = present_rows(call.prototypes, call.present, call.similarity)
    share = torch.ones(num_classes, dtype=features.dtype, device=features.device)
    if call.class_weight is not None:
        share = call.class_weight.to(features.dtype)
    if not call.keep_absent:
        share = torch.where(present, share, 0)
    if labels.is_floating_point():
        targets = labels.to(features.dtype)
    else:
        classes = torch.arange(num_classes, device=labels.device)
        targets = (rearrange(labels, "n -> n 1") == classes).to(features.dtype)
        targets = targets * rearrange(labels != call.ignore_index, "n -> n 1")

    def weighted(targets: Tensor) -> Tensor:
        mass = torch.where((share == 0) | (targets == 0), 0, targets * share)
        if call.pixel_weight is None:
            return mass
        weight = rearrange(call.pixel_weight.to(features.dtype), "n -> n 1")
        return torch.where((weight == 0) | (mass == 0), 0, mass * weight)

    weight = reduce(weighted(targets), "n c -> n", "sum")
    if label_smoothing:
        here = present | call.keep_absent
        own = torch.where(here, targets, 0)
        each = reduce(own, "n c -> n 1", "sum") / here.sum().clamp_min(1)
        targets = (1 - label_smoothing) * own + label_smoothing * torch.where(here, each, 0)
    targets = weighted(targets)
    valid = reduce(targets, "n c -> n", "sum") != 0
    # The ignored pixels' features may hold NaN, and 0 * NaN is NaN: they leave before any
    # arithmetic.
    readable = torch.where(rearrange(valid, "n -> n 1"), features, 0)
    read = LogitsCall(readable, call.prototypes, present, call.similarity, call.temperature)
    logits = prototype_logits(read, call.keep_absent)
    counted = rearrange(valid, "n -> n 1") & (targets != 0)
    lse = torch.logsumexp(torch.where(valid[:, None], logits, 0), dim=1)
    # An infinite peak is no number to compare logits with.
    lse = torch.where(lse.isinf(), torch.nan, lse)
    gap = repeat(lse, "n -> n c", c=num_classes) - torch.where(counted, logits, 0)
    return reduce(torch.where(counted, targets * gap, 0), "n c -> n", "sum"), weight


def equal_weights(targets: Tensor, shared: Tensor, whole_class: int) -> Tensor:
    """(M18) class weights (C,) from soft targets (N, C): 1 over the pixels, at least `whole_class`.

    Only `shared` classes carry loss.
    """
    counts = reduce(targets, "n c -> c", "sum")
    return torch.where(shared, 1 / counts.clamp_min(whole_class), 0)
