"""Targets and weights in plain torch, a mass per pixel and class, held whole.

For what the operator of the contrast never does: smoothed labels, and a temperature that is learnt.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, LogitsCall, accumulation_dtype
from protocontrast.ops.gradient import private_copy
from protocontrast.ops.labels import checked_labels
from protocontrast.ops.logits import logits


def present_classes(call: ContrastCall) -> Tensor:
    """(C,) the given presence, else every row, except all-zero rows under cosine."""
    if call.present is not None:
        return call.present
    if call.similarity == "cosine":
        return (call.prototypes != 0).any(dim=1)
    return torch.ones_like(call.prototypes[:, 0], dtype=torch.bool)


def counted_share(call: ContrastCall, present: Tensor) -> Tensor:
    """(C,) the classes' weights; 0 for an absent one, unless it stays in the denominator."""
    dtype = accumulation_dtype(call.features)
    share = torch.ones_like(present, dtype=dtype)
    if call.class_weight is not None:
        share = call.class_weight.to(dtype)
    return share if call.keep_absent else torch.where(present, share, 0)


def masses(call: ContrastCall, share: Tensor, function: str) -> Tensor:
    """(M3), (M5) mass w_i t_ic v_c with which pixels are pulled to classes, (B, C, P)."""
    each, labels = share[:, None], call.labels
    if labels.is_floating_point():
        soft = labels.to(share.dtype)
        mass = torch.where((each == 0) | (soft == 0), 0, soft * each)
    else:
        num_classes, ignore_index = share.shape[0], call.ignore_index
        labels = checked_labels(labels, num_classes, ignore_index, function).long()[:, None]
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        mass = torch.where(labels == classes, each, 0)
        # A value that is no class was refused on CPU; here it must not pass for one.
        mass = torch.where((labels < 0) | (labels >= num_classes), torch.nan, mass)
        mass = torch.where(labels == ignore_index, 0, mass)
    if call.pixel_weight is None:
        return mass
    weight = call.pixel_weight.to(share.dtype)[:, None]
    return torch.where((weight == 0) | (mass == 0), 0, mass * weight)


class Smoothed(NamedTuple):
    """Soft targets (B, C, P), and the summed weight () of what they were made from."""

    targets: Tensor
    weight: Tensor


def smoothed(call: ContrastCall, label_smoothing: float, function: str) -> Smoothed:
    """(M3) (1 - eps) t_ic + eps / C' sum_k t_ik, k and c among the C' classes that count."""
    there = present_classes(call)
    dtype = accumulation_dtype(call.features)
    here = torch.ones_like(there, dtype=dtype) if call.keep_absent else there.to(dtype)
    own = masses(call._replace(pixel_weight=None), here, function)
    each = own.sum(dim=1, keepdim=True) / here.sum().clamp_min(1)
    targets = (1 - label_smoothing) * own + label_smoothing * each * here[:, None]
    weight = masses(call, counted_share(call, there), function)
    return Smoothed(targets, weight.sum())


def learnt_contrast(call: ContrastCall, backend: str, function: str) -> tuple[Tensor, Tensor]:
    """Loss and mass of every pixel and class, each (B, C, P)."""
    there = private_copy(present_classes(call))
    mass = masses(call, counted_share(call, there), function)
    valid = (mass != 0).any(dim=1, keepdim=True)
    # The gradient of a pixel that is NaN is NaN even where nothing comes back to it.
    read = torch.where(valid, call.features, 0)
    cosines = logits(LogitsCall(read, call.prototypes, there, call.similarity, 1.0), backend)
    lowest = -1.0 if call.keep_absent else 0.0
    scores = torch.where(there[:, None], cosines, lowest) / call.temperature
    if not call.keep_absent:
        scores = torch.where(there[:, None], scores, -torch.inf)
    lse = torch.where(valid, scores, 0).logsumexp(dim=1, keepdim=True)
    gap = lse - torch.where(mass == 0, 0, scores)
    return torch.where(mass == 0, 0, mass * gap), mass
