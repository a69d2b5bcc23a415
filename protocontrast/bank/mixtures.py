"""Normal mixtures of single numbers, many at once: distribution, its inverse, and their fit.

A mixture has K components; every function works on a table of them, (..., K).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.functional.precision import smallest, widest

LOWEST, HIGHEST = 0.01, 0.99
"""Quantiles outside are taken at these: beyond them a fit to samples says nothing."""
INTERVALS = 1024
"""Pieces of an inverse distribution between them."""
HALVINGS = 50
NARROWEST = 1e-6
"""The smallest variance of a component."""


class Mixtures(NamedTuple):
    """Weights that sum to 1 over the last axis, means and variances, each (..., K)."""

    weight: Tensor
    mean: Tensor
    variance: Tensor


def normal_distribution(value: Tensor) -> Tensor:
    """The share of a standard normal distribution below each value, in place."""
    return value.mul_(-math.sqrt(0.5)).erfc_().mul_(0.5)


def distribution(value: Tensor, mixtures: Mixtures) -> Tensor:
    """(D6) F(z): value (..., n) of mixtures (..., K)."""
    total = torch.zeros_like(value)
    for k in range(mixtures.weight.shape[-1]):
        weight, mean, variance = (one[..., k : k + 1] for one in mixtures)
        total.addcmul_(weight, normal_distribution((value - mean) * variance.rsqrt()))
    return total


def density(value: Tensor, mixtures: Mixtures) -> Tensor:
    """The derivative of `distribution`."""
    gaps = value[..., None] - mixtures.mean[..., None, :]
    spread = mixtures.variance[..., None, :]
    peaks = (-0.5 * gaps.square() / spread).exp() / (2 * math.pi * spread).sqrt()
    return (peaks * mixtures.weight[..., None, :]).sum(dim=-1)


def inverse(mixtures: Mixtures) -> Tensor:
    """Cubic pieces of the inverse distributions of mixtures (R, K): (R, INTERVALS, 4).

    The inverse of piece j at u is c0 + c1 t + c2 t^2 + c3 t^3, 0 <= t <= 1, with t the place of u
    between LOWEST + j h and LOWEST + (j + 1) h. It never falls: where a gap between components
    makes it steep, slopes are held to three times the neighbouring rises.
    """
    wide = Mixtures(*(widest(one) for one in mixtures))
    share = torch.linspace(
        LOWEST, HIGHEST, INTERVALS + 1, dtype=wide.mean.dtype, device=wide.mean.device
    )
    reach = 8 * wide.variance.sqrt()
    low = (wide.mean - reach).amin(dim=-1, keepdim=True).expand(-1, len(share))
    high = (wide.mean + reach).amax(dim=-1, keepdim=True).expand(-1, len(share))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = distribution(middle, wide) < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    value = (low + high) / 2
    rise = value.diff(dim=-1)
    slope = density(value, wide)
    slope = (HIGHEST - LOWEST) / INTERVALS / slope.clamp_min(smallest(slope))
    gentlest = torch.minimum(
        torch.cat([rise[..., :1], rise], dim=-1), torch.cat([rise, rise[..., -1:]], dim=-1)
    )
    slope = torch.minimum(slope, 3 * gentlest)
    left, right = slope[..., :-1], slope[..., 1:]
    pieces = [value[..., :-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise]
    return torch.stack(pieces, dim=-1)


def at(share: Tensor, pieces: Tensor, kind: Tensor) -> Tensor:
    """Inverse distributions of shares (C, n) by anchors `kind` (C, n), from pieces (4, 2 * n)."""
    place = (share.clamp_(LOWEST, HIGHEST) - LOWEST).mul_(INTERVALS / (HIGHEST - LOWEST))
    index = place.long().clamp_(0, INTERVALS - 1)
    place.sub_(index)
    index = index.add_(kind, alpha=INTERVALS)
    value = pieces[3].take(index)
    for power in (2, 1, 0):
        value = value.mul_(place).add_(pieces[power].take(index))
    return value
