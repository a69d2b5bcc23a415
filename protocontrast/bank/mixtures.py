"""Normal mixtures of single numbers, many at once: distribution, its inverse, and their fit (D6).

A mixture has K components; functions work on a table of them, (..., K). Samples are logits
(C, C, n): class of the pixel, channel, pixel. Anchors are fitted to all pixels, tile by tile.
`total` adds up over ranks what it is given, so that a fit is to the logits of all.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.functional.precision import smallest, widest, widest_dtype

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


EM_STEPS = 3
"""Of each fit: a table moves slowly, and the next batch goes on from it."""

Total = Callable[[Tensor], Tensor]
Kinds = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits of pixels' own classes and of others, (n,) and (C n,), each with their weights."""


def first_guess(sums: Tensor, components: int) -> Mixtures:
    """Equal components along the quantiles of a normal distribution.

    From sums (R, 3) of ones, values and their squares.
    """
    number = sums[:, 0].clamp_min(1)
    mean = sums[:, 1] / number
    variance = (sums[:, 2] / number - mean.square()).clamp_min(NARROWEST)
    at = (widest(torch.arange(components, device=mean.device)) + 0.5) / components
    quantiles = math.sqrt(2) * torch.erfinv(2 * at - 1)
    # What the components' means do not spread is left to each of them.
    rest = (1 - quantiles.square().mean()) * variance
    weight = torch.full_like(variance, 1 / components)[:, None].expand(-1, components)
    return Mixtures(
        weight,
        mean[:, None] + variance.sqrt()[:, None] * quantiles,
        rest[:, None].expand_as(weight),
    )


def responsibilities(values: Tensor, mixtures: Mixtures) -> Tensor:
    """Probability that a value (R, n) comes from each component of mixtures (R, K): (R, n, K)."""
    gaps = values[..., None] - mixtures.mean[:, None]
    spread = mixtures.variance[:, None]
    return (mixtures.weight[:, None].log() - 0.5 * (gaps.square() / spread + spread.log())).softmax(
        -1
    )


def sums_of(values: Tensor, mixtures: Mixtures) -> Tensor:
    """Responsibility, times value, times its square, summed over values (R, n): (R, K, 3)."""
    share = responsibilities(values, mixtures)
    powers = torch.stack([torch.ones_like(values), values, values.square()], dim=-1)
    return share.transpose(1, 2) @ powers


def refitted(sums: Tensor, before: Mixtures) -> Mixtures:
    """(D6) the mixtures (R, K) that the sums (R, K, 3) ask for; empty components stay in place."""
    mass, total, square = sums.unbind(dim=-1)
    number = mass.sum(dim=-1, keepdim=True)
    weight = mass / number.clamp_min(smallest(number))
    empty = mass < 1e-9
    divisor = torch.where(empty, 1, mass)
    mean = torch.where(empty, before.mean, total / divisor)
    variance = (square / divisor - mean.square()).clamp_min(NARROWEST)
    return Mixtures(weight.clamp_min(1e-12), mean, torch.where(empty, before.variance, variance))


def begun(sums: Tensor, known: Tensor, old: Mixtures) -> Mixtures:
    """Where a fit starts: the old mixtures (R, K), or a first guess where they are not `known`."""
    guess = first_guess(sums, old.mean.shape[-1])
    pairs = zip(old, guess, strict=True)
    return Mixtures(*(torch.where(known[:, None], widest(one), new) for one, new in pairs))


def moments(samples: Tensor) -> Tensor:
    """Sums (..., 3) of ones, values and their squares over samples (..., n)."""
    powers = [torch.ones_like(samples), samples, samples.square()]
    return torch.stack([one.sum(dim=-1) for one in powers], dim=-1)


def fit_classes(
    samples: Tensor, used: Tensor, known: Tensor, old: Mixtures, total: Total
) -> tuple[Mixtures, Tensor]:
    """Mixtures (C, C, K) of every class and channel, and which of them (C, C) have samples.

    `used` (C, C) says which have samples here, `known` (C, C) which have an old mixture.
    """
    num_classes = len(samples)
    counted = used.to(samples.dtype)[..., None]
    sums = total(moments(samples) * counted).flatten(0, 1)
    flat = Mixtures(*(one.flatten(0, 1) for one in old))
    fitted = begun(sums, known.flatten(), flat)
    for _ in range(EM_STEPS):
        # Class by class, so that no table of all pixels, channels and components exists.
        rows = [one.split(num_classes) for one in fitted]
        parts = [sums_of(own, Mixtures(*each)) for own, *each in zip(samples, *rows, strict=True)]
        fitted = refitted(total(torch.stack(parts) * counted[..., None]).flatten(0, 1), fitted)
    shaped = Mixtures(*(one.unflatten(0, (num_classes, num_classes)) for one in fitted))
    return shaped, sums.unflatten(0, (num_classes, num_classes))[..., 0] > 0


def kinds_of(logits: Tensor, labels: Tensor, ignore_index: int) -> Kinds:
    """The logits (C, n) of pixels' own classes and of the others, each with its weight.

    Weights are 1, and 0 for pixels without a label, for those of a logit that is NaN or +inf,
    and for logits at -inf, whose class is absent.
    """
    num_classes = len(logits)
    absent = logits == -torch.inf
    used = (labels != ignore_index) & (labels >= 0) & (labels < num_classes)
    used = used & (torch.isfinite(logits) | absent).all(dim=0)
    place = torch.where(used, labels, 0).long()
    counted = used & ~absent
    finite = widest(torch.where(counted, logits, 0))
    other = counted & (torch.arange(num_classes, device=labels.device)[:, None] != place)
    own = finite.gather(0, place[None])[0], counted.gather(0, place[None])[0].to(finite.dtype)
    return own, (finite.flatten(), other.flatten().to(finite.dtype))


def weighted_sums(values: Tensor, weight: Tensor, mixture: Mixtures) -> Tensor:
    """`sums_of` one mixture (K,) over values (n,) with a weight each: (K, 3).

    Components come first and are worked on in place: anchors read every logit of a batch.
    """
    scale = (-0.5 / mixture.variance)[:, None]
    height = (mixture.weight.log() - 0.5 * mixture.variance.log())[:, None]
    share = (values - mixture.mean[:, None]).square_().mul_(scale).add_(height)
    share.sub_(share.amax(dim=0)).exp_()
    share.mul_(weight / share.sum(dim=0))
    return torch.stack([share.sum(dim=1), share @ values, share @ values.square()], dim=1)


def fit_anchors(
    tiles: Callable[[], Iterator[Kinds]], known: Tensor, old: Mixtures, total: Total
) -> tuple[Mixtures, Tensor]:
    """Mixtures (2, K) of logits of pixels' own classes and of others, and their numbers (2,).

    `tiles` goes over the batch from its start; `known` (2,) says which have an old mixture.
    """
    device, dtype = known.device, widest_dtype(known.device)
    sums = torch.zeros(2, 3, dtype=dtype, device=device)
    for kinds in tiles():
        for into, (values, weight) in zip(sums, kinds, strict=True):
            into += torch.stack([weight.sum(), weight @ values, weight @ values.square()])
    sums = total(sums)
    fitted = begun(sums, known, old)
    for _ in range(EM_STEPS):
        parts = torch.zeros(2, fitted.mean.shape[-1], 3, dtype=dtype, device=device)
        for kinds in tiles():
            for into, (values, weight), *anchor in zip(parts, kinds, *fitted, strict=True):
                into += weighted_sums(values, weight, Mixtures(*anchor))
        fitted = refitted(total(parts), fitted)
    return fitted, sums[:, 0]
