"""Masked average pooling (M1)."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.naive.similarity import unit_rows


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """(M1) sum of w_i f_i and of w_i over the pixels of each class: (C, D) and (C,)."""
    features, labels, pixel_weight = call.features, call.labels, call.pixel_weight
    weight = torch.ones_like(features[:, 0]) if pixel_weight is None else pixel_weight
    weight = torch.where(labels == call.ignore_index, 0, weight.to(features.dtype))
    # An ignored pixel may hold NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    features = torch.where(rearrange(weight != 0, "n -> n 1"), features, 0)
    if call.normalize:
        features = unit_rows(features)
    sums, counts = [], []
    for c in range(call.num_classes):
        member = rearrange((labels == c) & (weight != 0), "n -> n 1")
        mass = rearrange(weight, "n -> n 1")
        sums.append(reduce(torch.where(member, features * mass, 0), "n d -> d", "sum"))
        counts.append(torch.where(member, mass, 0).sum())
    return torch.stack(sums), torch.stack(counts)
