"""Masked average pooling (M1), squares around means (D1), and a step of bank and bias (M9-M11)."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import ClassSquaresCall, ClassSumsCall
from protocontrast.naive.similarity import unit_rows


def weighed(call: ClassSumsCall | ClassSquaresCall) -> tuple[Tensor, Tensor]:
    """Features (N, D), normalised if asked for, and weights (N,); 0 where a pixel is ignored."""
    features, labels, pixel_weight = call.features, call.labels, call.pixel_weight
    weight = torch.ones_like(features[:, 0]) if pixel_weight is None else pixel_weight
    weight = torch.where(labels == call.ignore_index, 0, weight.to(features.dtype))
    # An ignored pixel may hold NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    features = torch.where(rearrange(weight != 0, "n -> n 1"), features, 0)
    return unit_rows(features) if call.normalize else features, weight


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """(M1) sum of w_i f_i and of w_i over the pixels of each class: (C, D) and (C,)."""
    features, weight = weighed(call)
    sums, counts = [], []
    for c in range(call.num_classes):
        member = rearrange((call.labels == c) & (weight != 0), "n -> n 1")
        mass = rearrange(weight, "n -> n 1")
        sums.append(reduce(torch.where(member, features * mass, 0), "n d -> d", "sum"))
        counts.append(torch.where(member, mass, 0).sum())
    return torch.stack(sums), torch.stack(counts)


def class_squares(call: ClassSquaresCall) -> Tensor:
    """(D1) sum of w_i (f_i - means_c)^2 over the pixels of each class, channel by channel."""
    features, weight = weighed(call)
    squares = []
    for c, mean in enumerate(call.means):
        member = rearrange((call.labels == c) & (weight != 0), "n -> n 1")
        terms = rearrange(weight, "n -> n 1") * (features - mean).square()
        squares.append(reduce(torch.where(member, terms, 0), "n d -> d", "sum"))
    return torch.stack(squares)


def moving_average(old: Tensor, batch: Tensor, momentum: float, present: Tensor) -> Tensor:
    """(M9) momentum * old + (1 - momentum) * batch in the rows of present classes."""
    new = momentum * old + (1 - momentum) * batch
    return torch.where(rearrange(present, "c -> c 1"), new, old)


def calibrate(prototypes: Tensor, bias: Tensor, strength: float) -> Tensor:
    """(M11) every prototype moved by its class's domain bias."""
    return prototypes + strength * bias
