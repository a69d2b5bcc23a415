"""Labels and a loss for what stands still: a day image tells what a night image of it shows."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES

STATIC: Final = 11
"""The first classes, road to sky, stand still; those after them may have moved away."""
PASTED: Final = torch.arange(NUM_CLASSES) > STATIC
"""Rider to bicycle. Persons are the class at the border and are left out, as released."""
_SURE: Final = 0.4
_TRUST: Final = 0.8
_EPSILON: Final = 1e-7


def fused_labels(day: Tensor, night: Tensor, weight: Tensor) -> Tensor:
    """y = argmax_c w_c q_c, q = t p_day + (1 - t) p_night for static c, and p_night for things.

    t is 0.8 where p_day > 0.4, else 0.2.

    Args:
        day, night: probabilities of two images of one place.
        weight: w.

    Shape:
        day and night (B, C, h, w), weight (C,). Result: (B, h, w), without gradient.

    Source:
        Wu et al., DANNet, CVPR 2021, arXiv 2104.10834, which Bi-Mix keeps; numbers as released.
    """
    trust = torch.where(day > _SURE, _TRUST, 1 - _TRUST)
    trust[:, STATIC:] = 0
    fused = trust * day + (1 - trust) * night
    return (weight.view(-1, 1, 1) * fused.detach()).argmax(dim=1)


def static_focal_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean over labelled pixels of -(1 - p) log p, p = max of w_c P_c over the classes around.

    P is a softmax over the static classes alone; a class is around a pixel where one of the 3 x 3
    labels has it, because day and night do not match to the pixel. Things are no labels.

    Args:
        logits: of all classes.
        labels: their labels; those that are not static are left out.
        weight: w.

    Shape:
        logits (B, C, h, w), labels (B, h, w), weight (C,). Result: (), 0 without static labels.

    Source:
        As `fused_labels`; the exponent of 1 - p is 1 there.
    """
    static = labels.masked_fill(labels >= STATIC, STATIC)
    around = F.one_hot(static, STATIC + 1)[..., :STATIC].movedim(-1, 1).to(logits.dtype)
    around = F.max_pool2d(around, 3, stride=1, padding=1)
    share = logits[:, :STATIC].softmax(dim=1) * weight[:STATIC].view(-1, 1, 1)
    right = (share * around).amax(dim=1).clamp(_EPSILON, 1 - _EPSILON)
    labelled = static < STATIC
    each = -(1 - right) * right.log() * labelled
    return each.sum() / labelled.sum().clamp(min=1)


def without_things(labels: Tensor) -> Tensor:
    """Leave out labels of what may have moved away."""
    return labels.masked_fill(labels >= STATIC, IGNORE)
