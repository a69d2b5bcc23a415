"""Class means, counts and variances as numbers that can be added up: for `PrototypeBank`."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.checks import (
    called,
    check_device,
    check_floating,
    check_like,
    check_shape,
    sentence,
)
from protocontrast.functional import ClassPrototypes, ClassStatistics
from protocontrast.functional.precision import widest


class Moments(NamedTuple):
    """Means (C, D), counts (C,) and variances (C, D) or None; or all three as sums."""

    mean: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, as in ClassPrototypes
    variance: Tensor | None


@called("PrototypeBank")
def read_statistics(
    stats: ClassPrototypes | ClassStatistics, prototypes: Tensor, with_variance: bool
) -> Moments:
    """Check statistics for a bank of these `prototypes`; those per image become one set.

    An image that holds a class counts once, whatever the number of its pixels.
    """
    name = (
        "ClassStatistics(mean, count, variance)"
        if with_variance
        else "ClassPrototypes(mean, count)"
    )
    if not isinstance(stats, tuple) or len(stats) != (3 if with_variance else 2):
        requirement = f"to be {name}"
        raise TypeError(sentence("stats", requirement, type(stats).__name__))
    mean, count, *rest = stats
    check_floating("stats.mean", mean)
    check_floating("stats.count", count)
    images = (mean.shape[0],) if mean.dim() == 3 else ()
    num_classes, dim = prototypes.shape
    reason = f"for a bank of {num_classes} classes and dim {dim}"
    hint = "use the bank built for these features."
    expected = (*images, num_classes)
    check_shape("stats.mean", mean, (*expected, dim), reason, hint)
    check_shape("stats.count", count, expected, "like stats.mean")
    check_device("stats.mean", mean, prototypes, "the bank")
    check_device("stats.count", count, prototypes, "the bank")
    variance = None
    if rest:
        shape = (*expected, dim)
        check_like("stats.variance", rest[0], shape, "like stats.mean", prototypes, "the bank")
        variance = rest[0].detach()
    if not images:
        return Moments(mean.detach(), count.detach(), variance)
    seen = (count > 0).to(mean.dtype)
    number = seen.sum(dim=0)
    divisor = number.clamp_min(1)[:, None]
    total = torch.where(seen[..., None] > 0, mean, 0).sum(dim=0)
    centre = total / divisor
    if variance is not None:
        around = variance + (mean - centre).square()
        variance = torch.where(seen[..., None] > 0, around, 0).sum(dim=0) / divisor
    return Moments(centre, number, variance)


def read_batches(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs of an iterable, each looked at when its turn comes."""
    requirement = "to be an iterable of (features, labels) pairs"
    iterable = isinstance(batches, Iterable) and not isinstance(batches, (str, bytes, Tensor))
    # An array of no dimension has the method and refuses.
    if not iterable or getattr(batches, "ndim", 1) == 0:
        got = type(batches).__name__
        raise TypeError(sentence("batches", requirement, got).said_by("PrototypeBank"))
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            sized = isinstance(batch, (tuple, list))
            got = f"{type(batch).__name__} of {len(batch)}" if sized else type(batch).__name__
            raise TypeError(sentence("batches", requirement, got).said_by("PrototypeBank"))
        features, labels = batch
        yield features, labels


def summed(stats: Moments) -> Moments:
    """Sums of features and of their squares in place of means and variances, float64.

    0 where the count is 0, whatever the statistics hold.
    """
    count = widest(stats.count)
    counted = count[:, None] > 0
    mean = widest(stats.mean)
    total = torch.where(counted, mean * count[:, None], 0)
    if stats.variance is None:
        return Moments(total, count, None)
    square = (widest(stats.variance) + mean.square()) * count[:, None]
    return Moments(total, count, torch.where(counted, square, 0))


def averaged(sums: Moments) -> Moments:
    """Means and variances from sums; 0 where the count is 0."""
    count = sums.count.clone()
    divisor = torch.where(count > 0, count, 1)[:, None]
    mean = sums.mean / divisor
    if sums.variance is None:
        return Moments(mean, count, None)
    return Moments(mean, count, (sums.variance / divisor - mean.square()).clamp_min(0))


def mixed(old: Tensor, new: Tensor, gap: Tensor, share: Tensor) -> Tensor:
    """(D2) variance of a mixture that takes a `share` of the new; `gap` is between the means."""
    return (1 - share) * old + share * new + share * (1 - share) * gap.square()
