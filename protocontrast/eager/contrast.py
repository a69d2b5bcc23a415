"""Contrast of pixels and prototypes: (M3) to (M5) for `pixel_prototype_contrast`.

`contrast` gives loss and log-sum-exp per pixel; `contrast_backward` reads the features a second
time; `contrast_with_gradient` writes the gradient of the reduced loss in the forward sweep.
"""

import torch
from torch import Tensor

from protocontrast.eager.similarity import Scored, Similarity
from protocontrast.eager.targets import Targets
from protocontrast.eager.tiles import (
    Tile,
    accumulation_dtype,
    class_rows,
    holds_nonfinite,
    tiles,
    widened,
    without,
)


def _prepare(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float | Tensor,
    floor: bool,
    ignore_index: int,
) -> tuple[Similarity, Targets]:
    dtype = accumulation_dtype(features)
    similarity = Similarity(prototypes, present, kind, temperature, floor, dtype)
    targets = Targets(labels, similarity, class_weight, pixel_weight, floor, ignore_index)
    return similarity, targets


def _score(features: Tensor, tile: Tile, similarity: Similarity, weight: Tensor) -> Scored:
    """The logits of a tile; an ignored pixel that holds NaN or infinity is read as 0."""
    block = widened(features, tile)
    scored = similarity.scores(block)
    if holds_nonfinite(scored.logits):
        return similarity.scores(without(block, tile.of(weight) == 0))
    return scored


def contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float | Tensor,
    floor: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    similarity, targets = _prepare(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index,
    )  # fmt: skip
    loss = torch.zeros_like(targets.weight)
    normaliser = torch.zeros_like(targets.weight)
    for tile in tiles(features):
        scored = _score(features, tile, similarity, targets.weight)
        exponentials, peak = similarity.exponentials(scored.logits)
        total = exponentials.sum(dim=0).log_()
        total = total if peak is None else total.add_(peak)
        weight = tile.of(targets.weight)
        pulled = targets.pulled(tile, similarity.with_offset(scored.logits))
        tile.of(loss).copy_(torch.where(weight == 0, 0, weight * total - pulled))
        # An ignored pixel has no softmax, whatever its features hold.
        tile.of(normaliser).copy_(torch.where(weight == 0, torch.inf, total))
    return loss, targets.weight, normaliser


def contrast_backward(
    upstream: Tensor,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    normaliser: Tensor,
    kind: str,
    temperature: float | Tensor,
    floor: bool,
    ignore_index: int,
    wants_features: bool,
    wants_prototypes: bool,
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of sum_i upstream_i loss_i; one that is not wanted comes back empty."""
    similarity, targets = _prepare(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index,
    )  # fmt: skip
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = class_rows(features, len(similarity.matrix))
    # An ignored pixel's upstream gradient may be anything, and a pixel whose upstream gradient is 0
    # may hold anything: nothing comes back to either.
    asked = torch.where(upstream == 0, 0, targets.weight)
    for tile in tiles(features):
        scored = _score(features, tile, similarity, asked)
        weight = tile.of(targets.weight)
        unasked = tile.of(asked) == 0
        factor = torch.where(unasked, 0, tile.of(upstream))
        total_log = torch.where(unasked, torch.inf, tile.of(normaliser))
        slope = similarity.softmax(scored.logits, total_log).mul_(weight * factor)
        targets.subtract(tile, slope, factor)
        similarity.pull_back(
            scored,
            slope,
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    if not wants_prototypes:
        return gradient, prototypes.new_empty(0)
    return gradient, similarity.finish(total)


def contrast_with_gradient(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float | Tensor,
    floor: bool,
    ignore_index: int,
    mean: bool,
    wants_features: bool,
    wants_prototypes: bool,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed or averaged loss () and its gradients, from one read of the features.

    `gradient` is where that of the features is written; None: a new tensor.
    """
    similarity, targets = _prepare(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index,
    )  # fmt: skip
    if mean:
        targets.average()
    if gradient is None or not wants_features:
        gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = class_rows(features, len(similarity.matrix))
    losses = []
    for tile in tiles(features):
        scored = _score(features, tile, similarity, targets.weight)
        weight = tile.of(targets.weight)
        pulled = targets.pulled(tile, similarity.with_offset(scored.logits))
        slope, peak = similarity.exponentials(scored.logits)
        mass = slope.sum(dim=0)
        # No class is present where the mass is 0, and no pixel valid.
        slope.mul_(torch.where(weight == 0, 0, weight / mass))
        total_log = mass.log_() if peak is None else mass.log_().add_(peak)
        losses.append(torch.where(weight == 0, 0, weight * total_log - pulled).sum())
        targets.subtract(tile, slope, None)
        similarity.pull_back(
            scored,
            slope,
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    loss = torch.stack(losses).sum() if losses else total.new_zeros(())
    return (
        loss,
        gradient,
        similarity.finish(total) if wants_prototypes else prototypes.new_empty(0),
    )


def scale_in_place(gradient: Tensor, upstream: Tensor) -> Tensor:
    """Multiply a gradient by a scalar upstream gradient; on CPU a factor of 1 costs no pass.

    A factor of 0 leaves 0, whatever the gradient holds.
    """
    if upstream.device.type == "cpu" and float(upstream) in (0.0, 1.0):
        return gradient if float(upstream) else gradient.zero_()
    return gradient.mul_(upstream)
