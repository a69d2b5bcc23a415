"""Hard or soft targets, smoothed over the classes that there are."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.masses import counted_share, masses, present_classes


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
