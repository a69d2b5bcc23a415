"""Targets and weights in plain torch: a mass per pixel and class, held whole."""

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.labels import checked_labels


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
