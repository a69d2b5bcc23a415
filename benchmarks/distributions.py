"""Class statistics and contrast with class distributions, as one would write them."""

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from benchmarks.contenders import IGNORE_INDEX, NUM_CLASSES

TEMPERATURE = 0.5
"""Not the published 100, at which all losses are alike and an error would not show."""


def library_contrast(features: Tensor, labels: Tensor, means: Tensor, spread: Tensor) -> Tensor:
    """The library's."""
    return pc.distribution_contrast(features, labels, means, spread, temperature=TEMPERATURE)


def eager_contrast(features: Tensor, labels: Tensor, means: Tensor, spread: Tensor) -> Tensor:
    """The same from unit features and their squares."""
    unit = F.normalize(features, dim=1)
    scores = torch.einsum("bdhw,cd->bchw", unit, means) / TEMPERATURE
    bonus = torch.einsum("bdhw,cd->bchw", unit.square(), spread) / (2 * TEMPERATURE**2)
    total = torch.logsumexp(scores + bonus, dim=1)
    valid = labels != IGNORE_INDEX
    own = scores.gather(1, torch.where(valid, labels, 0)[:, None])[:, 0]
    return torch.where(valid, total - own, 0).sum() / valid.sum()


def library_statistics(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of unit features."""
    stats = pc.class_statistics(features, labels, NUM_CLASSES, normalize=True)
    return stats.mean, stats.variance


def one_hot_statistics(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same by products with one-hot labels, the variance around the mean."""
    unit = F.normalize(features, dim=1).flatten(2)
    member = F.one_hot(torch.where(labels == IGNORE_INDEX, NUM_CLASSES, labels), NUM_CLASSES + 1)
    member = member[..., :-1].flatten(1, 2).to(unit.dtype)
    count = member.sum(dim=(0, 1)).clamp_min(1)[:, None]
    mean = torch.einsum("bpc,bdp->cd", member, unit) / count
    gap = unit - torch.einsum("bpc,cd->bdp", member, mean)
    return mean, torch.einsum("bpc,bdp->cd", member, gap.square()) / count
