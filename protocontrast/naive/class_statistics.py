"""Squares of features around their class means (D1)."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import ClassSquaresCall
from protocontrast.naive.similarity import unit_rows


def class_squares(call: ClassSquaresCall) -> Tensor:
    """(D1) sum of w_i (f_i - means_c)^2 over the pixels of each class, channel by channel."""
    features, labels, pixel_weight = call.features, call.labels, call.pixel_weight
    weight = torch.ones_like(features[:, 0]) if pixel_weight is None else pixel_weight
    weight = torch.where(labels == call.ignore_index, 0, weight.to(features.dtype))
    # An ignored pixel may hold NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    features = torch.where(rearrange(weight != 0, "n -> n 1"), features, 0)
    if call.normalize:
        features = unit_rows(features)
    squares = []
    for c, mean in enumerate(call.means):
        member = rearrange((labels == c) & (weight != 0), "n -> n 1")
        terms = rearrange(weight, "n -> n 1") * (features - mean).square()
        squares.append(reduce(torch.where(member, terms, 0), "n d -> d", "sum"))
    return torch.stack(squares)
