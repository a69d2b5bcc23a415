"""Every public call that takes a temperature, on one small scene."""

from collections.abc import Callable

import torch
from torch import Tensor

import protocontrast as pc
from tests.differentiable import CALLS as GIVEN

Tempered = Callable[[Tensor, Tensor, Tensor, object], Tensor]
"""From features (B, D, P), labels (B, P), prototypes (C, D) and a temperature."""


def _tempered(name: str, **settings: object) -> Tempered:
    return lambda f, y, p, t: GIVEN[name](f, y, p, temperature=t, **settings)


def _logits(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    present = torch.arange(len(p), device=f.device) != 1
    found = pc.prototype_logits(f, p, present=present, temperature=t)
    return torch.where(found == -torch.inf, 0, found)


def _spread(f: Tensor, y: Tensor, p: Tensor, t: object) -> Tensor:
    return pc.spread(f, y, p, toward="uniform", similarity="cosine", temperature=t)


CALLS: dict[str, Tempered] = {
    "contrast": _tempered("mean"),
    "floor": _tempered("floor", reduction="sum"),
    "dot": _tempered("mean", similarity="dot", reduction="none"),
    "euclidean": _tempered("mean", similarity="euclidean"),
    "soft": _tempered("soft mean"),
    "weighted": _tempered("weighted mean"),
    "smoothed": _tempered("smoothed"),
    "logits": _logits,
    "pairs": _tempered("pairs"),
    "dot pairs": _tempered("pairs", similarity="dot", reduction="sum"),
    "distant pairs": _tempered("pairs", similarity="euclidean"),
    "opposed": _tempered("pairs none", similarity="cosine", reduction="mean"),
    "distribution": _tempered("distribution"),
    "raw distribution": _tempered("distribution none"),
    "bidirectional": _tempered("bidirectional"),
    "balanced": _tempered("balanced"),
    "whole batches": _tempered("bidirectional", pairwise=False, absent="floor"),
    "spread": _spread,
}
