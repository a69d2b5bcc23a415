"""Class scores of pixels, and the weighted mean over pixels that the losses on them share."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.checks import check_choice, check_like
from protocontrast.functional.pixels import Pixels, read_features, read_pixel_weight
from protocontrast.functional.settings import REDUCTIONS
from protocontrast.ops.reduction import reduced


class Scores(NamedTuple):
    """Logits (B, C, P), 0 on pixels that are ignored, and the weights of all pixels (B, P)."""

    pixels: Pixels
    values: Tensor
    weight: Tensor

    def without(self, ignored: Tensor) -> "Scores":
        """The same with the pixels `ignored` (B, P) left out, too."""
        weight = torch.where(ignored, 0, self.weight)
        return Scores(self.pixels, torch.where(weight[:, None] != 0, self.values, 0), weight)

    def reduced(self, losses: Tensor, reduction: str) -> Tensor:
        """Losses (B, P) weighted, in the pixels' own shape or summed; "mean" divides by weights."""
        losses = losses * self.weight
        losses = reduced(losses, self.weight, reduction)
        return self.pixels.restored(losses) if reduction == "none" else losses


def widened(values: Tensor) -> Tensor:
    """Floating values in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def read_scores(
    argument: str, values: Tensor, pixel_weight: Tensor | None, reduction: str
) -> Scores:
    """Check logits and bring them to (B, C, P).

    A pixel is ignored where its weight is 0, and where no class is present, all being -inf. What is
    -inf has gradient 0.
    """
    pixels = read_features(values, argument)
    check_choice("reduction", reduction, REDUCTIONS)
    wide = widened(pixels.features)
    given = read_pixel_weight(pixels, pixel_weight, to=argument)
    weight = torch.ones_like(wide[:, 0]) if given is None else given.to(wide.dtype)
    # NaN differs from -inf, so that a spoilt pixel is not taken for one without classes.
    absent = wide == -torch.inf
    # An absent class gets no gradient, also where a loss asks for it and is infinite.
    wide = torch.where(absent, -torch.inf, wide)
    return Scores(pixels, wide, weight.detach()).without(absent.all(dim=1))


def same_as(scores: Scores, argument: str, values: Tensor, like: str) -> Tensor:
    """Other scores (B, C, P) of the same shape and device, in the same dtype."""
    original = scores.pixels.original
    check_like(argument, values, tuple(original.shape), f"like {like}", original, like)
    return read_features(values, argument).features.to(scores.values.dtype)


def at_label(values: Tensor, labels: Tensor) -> Tensor:
    """The value (B, P) of each pixel's label among (B, C, P); NaN where that is no class."""
    # A gather by a wrong label would stop a GPU, so the index is forced inside and compared.
    index = labels.clamp(0, values.shape[1] - 1)
    picked = values.gather(1, index[:, None])[:, 0]
    return torch.where(index == labels, picked, torch.nan)
