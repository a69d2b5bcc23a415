"""Contrast with a mean and a variance per class (D3)."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import DistributionCall
from protocontrast.naive.similarity import unit_rows


def pulls(call: DistributionCall, share: Tensor) -> Tensor:
    """(M3), (M5) mass w_i t_ic v_c with which a pixel is pulled to each class, (N, C)."""
    labels = call.labels
    if labels.is_floating_point():
        targets = labels.to(share.dtype)
    else:
        classes = torch.arange(len(share), device=labels.device)
        targets = (rearrange(labels, "n -> n 1") == classes).to(share.dtype)
        targets = targets * rearrange(labels != call.ignore_index, "n -> n 1")
    mass = torch.where((share == 0) | (targets == 0), 0, targets * share)
    if call.pixel_weight is None:
        return mass
    weight = rearrange(call.pixel_weight.to(share.dtype), "n -> n 1")
    return torch.where((weight == 0) | (mass == 0), 0, mass * weight)


def distribution_contrast(call: DistributionCall) -> tuple[Tensor, Tensor]:
    """(D3) weighted loss and weight of every pixel, each (N,).

    loss_i = sum_c mass_ic (logsumexp_k z_ik - f_i.mu_c / tau), with
    z_ic = f_i.mu_c / tau + sum_d f_id^2 S_cd / (2 tau^2).
    """
    features, temperature = call.features, call.temperature
    share = torch.ones(len(call.prototypes), dtype=features.dtype, device=features.device)
    here = torch.ones_like(share, dtype=torch.bool) if call.present is None else call.present
    if call.class_weight is not None:
        share = call.class_weight.to(features.dtype)
    mass = pulls(call, torch.where(here, share, 0))
    weight = reduce(mass, "n c -> n", "sum")
    # An ignored pixel may hold NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    readable = torch.where(rearrange(weight != 0, "n -> n 1"), features, 0)
    if call.normalize:
        readable = unit_rows(readable)
    rows = rearrange(here, "c -> c 1")
    means = torch.where(rows, call.prototypes, 0).to(features.dtype)
    spread = torch.where(rows, call.variance, 0).to(features.dtype)
    linear = torch.einsum("nd,cd->nc", readable, means) / temperature
    # Not f^2 times S: where the product is a number of the dtype, the square need not be one.
    wide = rearrange(readable, "n d -> n 1 d")
    bonus = reduce(wide * (wide * spread), "n c d -> n c", "sum") / (2 * temperature * temperature)
    logits = torch.where(here, linear + bonus, -torch.inf)
    logits = torch.where(rearrange(weight != 0, "n -> n 1"), logits, 0)
    gap = rearrange(torch.logsumexp(logits, dim=1), "n -> n 1") - linear
    return reduce(torch.where(mass != 0, mass * gap, 0), "n c -> n", "sum"), weight
