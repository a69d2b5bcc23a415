"""Nearest prototype, its confidence and the thresholds in one read: (M6) for `transfer_labels`."""

import torch
from torch import Tensor

from protocontrast.eager.similarity import Similarity
from protocontrast.eager.tiles import accumulation_dtype, tiles, widened


def transfer(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    threshold: float,
    class_threshold: Tensor | None,
    measure: str,
    kind: str,
    temperature: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    dtype = accumulation_dtype(features)
    confidence = measure == "confidence"
    # The similarity itself is wanted exactly, so 1/tau stays out of it.
    scale = temperature if confidence else 1.0
    similarity = Similarity(prototypes, present, kind, scale, False, dtype)
    images, _, pixels = features.shape
    labels = torch.empty(images, pixels, dtype=torch.int64, device=features.device)
    values = torch.empty(images, pixels, dtype=dtype, device=features.device)
    num_classes = len(prototypes)
    # argmax over rows is slow on CPU; the largest rank among the maxima is the lowest class.
    rank = (num_classes - similarity.first_of_equals()).to(dtype)[:, None]
    for tile in tiles(features):
        logits = similarity.scores(widened(features, tile)).logits.add_(similarity.offset)
        peak = logits.amax(dim=0, keepdim=True)
        at_peak = torch.eq(logits, peak, out=torch.empty_like(logits))
        tile.of(labels).copy_(num_classes - at_peak.mul_(rank).amax(dim=0))
        if confidence:
            tile.of(values).copy_(logits.sub_(peak).exp_().sum(dim=0).reciprocal_())
        else:
            tile.of(values).copy_(peak[0])
    somewhere = similarity.present.any()
    values = torch.where(somewhere | torch.isnan(values), values, 0)
    if class_threshold is None:
        kept = values >= threshold
    else:
        nearest = labels.clamp(0, num_classes - 1)
        kept = values >= class_threshold.to(dtype)[nearest]
    kept &= somewhere
    return torch.where(kept, labels, ignore_index), values
