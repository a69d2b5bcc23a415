"""Every public call that takes a temperature, on one small scene."""

from collections.abc import Callable

import torch
from torch import Tensor

import protocontrast as pc
from tests.differentiable import soft_labels

Tempered = Callable[[Tensor, Tensor, Tensor, object], Tensor]
"""From features (B, D, P), labels (B, P), prototypes (C, D) and a temperature."""


def _contrast(**settings: object) -> Tempered:
    return lambda f, y, p, t: pc.pixel_prototype_contrast(f, y, p, temperature=t, **settings)


def _soft(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    share = torch.arange(len(p), device=y.device) * 0.5  # a list would make a device wait
    return pc.pixel_prototype_contrast(
        f, soft_labels(y), p, temperature=t, class_weight=share, pixel_weight=y.float() / 100
    )


def _pairs(**settings: object) -> Tempered:
    def call(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
        keys = torch.cat([p, f[0].t()])
        classes = torch.cat([torch.arange(len(p), device=y.device), y[0]])
        return pc.pair_contrast(f[-1].t(), y[-1], keys, classes, temperature=t, **settings)

    return call


def _opposed(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    rows, own = f[0].t(), y[0]
    return pc.pair_contrast(
        rows, own, rows, own, negatives=p, exclude_self=True, temperature=t, denominator="all",
        negative_labels=torch.arange(len(p), device=y.device),
        anchor_weight=torch.arange(1, len(own) + 1, device=y.device) / 4,
    )  # fmt: skip


def _distribution(**settings: object) -> Tempered:
    return lambda f, y, p, t: pc.distribution_contrast(
        f, y, p, p.square().roll(1, dims=0), temperature=t, **settings
    )


def _both_ways(**settings: object) -> Tempered:
    return lambda f, y, p, t: (
        pc.bidirectional_contrast(
            f, y, f.flip(0) + 0.1, y.flip(0), num_classes=len(p), temperature=t, **settings
        ).loss
    )


def _logits(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    present = torch.arange(len(p), device=f.device) != 1
    found = pc.prototype_logits(f, p, present=present, temperature=t)
    return torch.where(found == -torch.inf, 0, found)


def _spread(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    return pc.spread(f, y, p, toward="uniform", similarity="cosine", temperature=t)


CALLS: dict[str, Tempered] = {
    "contrast": _contrast(),
    "floor": _contrast(absent="floor", reduction="sum"),
    "dot": _contrast(similarity="dot", reduction="none"),
    "euclidean": _contrast(similarity="euclidean"),
    "soft": _soft,
    "logits": _logits,
    "pairs": _pairs(),
    "dot pairs": _pairs(similarity="dot", reduction="sum"),
    "distant pairs": _pairs(similarity="euclidean"),
    "opposed": _opposed,
    "distribution": _distribution(),
    "raw distribution": _distribution(normalize=False, reduction="none"),
    "bidirectional": _both_ways(),
    "whole batches": _both_ways(pairwise=False, absent="floor"),
    "spread": _spread,
}
