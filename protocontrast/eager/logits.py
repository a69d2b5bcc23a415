"""Logits of every pixel against every prototype: (M2) for `prototype_logits`."""

import torch
from torch import Tensor

from protocontrast.eager.similarity import Similarity
from protocontrast.eager.tiles import accumulation_dtype, class_rows, tiles, widened


def logits(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    kind: str,
    temperature: float | Tensor,
) -> Tensor:
    """(B, C, P); absent classes -inf."""
    dtype = accumulation_dtype(features)
    similarity = Similarity(prototypes, present, kind, temperature, False, dtype)
    images, _, pixels = features.shape
    out = torch.empty(images, len(prototypes), pixels, dtype=dtype, device=features.device)
    for tile in tiles(features):
        tile.of(out).copy_(similarity.scores(widened(features, tile)).logits)
    return out.masked_fill_(~similarity.present[:, None], -torch.inf)


def logits_backward(
    upstream: Tensor,
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    kind: str,
    temperature: float | Tensor,
    wants_features: bool,
    wants_prototypes: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients from upstream (B, C, P); one that is not wanted comes back empty."""
    dtype = accumulation_dtype(features)
    similarity = Similarity(prototypes, present, kind, temperature, False, dtype)
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = class_rows(features, len(similarity.matrix))
    for tile in tiles(features):
        slope = torch.where(similarity.present[:, None], tile.of(upstream), 0).to(dtype)
        similarity.pull_back(
            similarity.scores(widened(features, tile)),
            slope,
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    if not wants_prototypes:
        return gradient, prototypes.new_empty(0)
    return gradient, similarity.finish(total)
