"""Nearest prototype, its confidence and the thresholds in one read: (M6) for `transfer_labels`."""

import torch
from torch import Tensor

from protocontrast.calls import TransferCall, accumulation_dtype
from protocontrast.eager.similarity import Similarity, exp_of_differences_
from protocontrast.eager.tiles import tiles, widened


class Nearest:
    """The nearest of some prototypes, tile by tile, and the measure of how near it is."""

    def __init__(self, call: TransferCall) -> None:
        dtype = accumulation_dtype(call.features)
        self.confidence = call.measure == "confidence"
        # The similarity itself is wanted exactly, so 1/tau stays out of it.
        scale = call.temperature if self.confidence else 1.0
        self.similarity = Similarity(
            call.prototypes, call.present, call.similarity, scale, False, dtype
        )
        self.num_classes = len(call.prototypes)
        # argmax over rows is slow on CPU; the largest rank among the maxima is the lowest class.
        rank = self.num_classes - self.similarity.first_of_equals()
        self.rank = rank.to(dtype)[:, None]
        self.somewhere = self.similarity.present.any()

    def of(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Classes, as floats, and measure of a tile, (n,) each, from logits that are overwritten.

        An unreadable pixel has the measure NaN and C, which is no class.
        """
        logits.add_(self.similarity.offset)
        peak = logits.amax(dim=0, keepdim=True)
        at_peak = torch.eq(logits, peak, out=torch.empty_like(logits))
        found = self.num_classes - at_peak.mul_(self.rank).amax(dim=0)
        if not self.confidence:
            return found, peak[0]
        return found, exp_of_differences_(logits.sub_(peak)).sum(dim=0).reciprocal_()

    def seen(self, values: Tensor) -> Tensor:
        """The measures, but 0 where there is no prototype at all."""
        return torch.where(self.somewhere | torch.isnan(values), values, 0)


def transfer(call: TransferCall) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features, limits = call.features, call.class_threshold
    dtype = accumulation_dtype(features)
    nearest = Nearest(call)
    images, _, pixels = features.shape
    labels = torch.empty(images, pixels, dtype=torch.int64, device=features.device)
    values = torch.empty(images, pixels, dtype=dtype, device=features.device)
    for tile in tiles(features):
        found, value = nearest.of(nearest.similarity.scores(widened(features, tile)).logits)
        tile.of(labels).copy_(found)
        tile.of(values).copy_(value)
    values = nearest.seen(values)
    if limits is None:
        kept = values >= call.threshold
    else:
        kept = values >= limits.to(dtype)[labels.clamp(0, nearest.num_classes - 1)]
    kept &= nearest.somewhere
    return torch.where(kept, labels, call.ignore_index), values
