"""Logits of every pixel against every prototype: (M2) for `prototype_logits`."""

import torch
from torch import Tensor

from protocontrast.calls import LogitsCall, accumulation_dtype
from protocontrast.eager.similarity import Similarity
from protocontrast.eager.tiles import tiles, widened


def _similarity(call: LogitsCall) -> Similarity:
    dtype = accumulation_dtype(call.features)
    return Similarity(
        call.prototypes, call.present, call.similarity, call.temperature, False, dtype
    )


def logits(call: LogitsCall) -> Tensor:
    """(B, C, P); absent classes -inf."""
    features = call.features
    similarity = _similarity(call)
    images, _, pixels = features.shape
    shape = images, len(call.prototypes), pixels
    out = torch.empty(shape, dtype=accumulation_dtype(features), device=features.device)
    for tile in tiles(features):
        tile.of(out).copy_(similarity.scores(widened(features, tile)).logits)
    return out.masked_fill_(~similarity.present[:, None], -torch.inf)


def logits_backward(
    grad_output: Tensor, call: LogitsCall, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes from that of the logits (B, C, P)."""
    features, (wants_features, wants_prototypes) = call.features, wants
    similarity = _similarity(call)
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = torch.zeros_like(similarity.matrix)
    for tile in tiles(features):
        grad_logits = torch.where(similarity.present[:, None], tile.of(grad_output), 0)
        similarity.pull_back(
            similarity.scores(widened(features, tile)),
            grad_logits.to(total.dtype),
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    if not wants_prototypes:
        return gradient, call.prototypes.new_empty(0)
    return gradient, similarity.finish(total)
