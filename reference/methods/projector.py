"""Heads of 1x1 convolutions between the network's features and a contrast, and what they need."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE

_GROUPS: Final = 8


class Projector(nn.Sequential):
    """Convolutions of D to D channels, and unit length; of random weights by the seed alone.

    Args:
        dim: channels D, a multiple of 8.
        kinds: "c" is a 1x1 convolution, "n" GroupNorm where batch norm was published, "r" a ReLU.
        seed: of the weights; torch's own random state is left as it was.

    Shape:
        features (B, D, h, w). Result the same.
    """

    def __init__(self, dim: int, kinds: str, seed: int) -> None:
        made = {
            "c": lambda: nn.Conv2d(dim, dim, 1),
            "n": lambda: nn.GroupNorm(_GROUPS, dim),
            "r": lambda: nn.ReLU(),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(*(made[kind]() for kind in kinds))

    def forward(self, features: Tensor) -> Tensor:
        """Compute features of unit length."""
        return F.normalize(super().forward(features), dim=1)


def pixel_rows(features: Tensor) -> Tensor:
    """Features (B, D, h, w) as one row per pixel, (B h w, D)."""
    return features.movedim(1, -1).flatten(0, 2)


def classes_of(means: pc.ClassPrototypes) -> Tensor:
    """Labels (C,) of class means: the class, or 255 where it is absent."""
    classes = torch.arange(len(means.present), device=means.present.device)
    return torch.where(means.present, classes, IGNORE)
