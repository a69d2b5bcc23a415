"""Contrast of pixels and prototypes: (M3) to (M5) for `pixel_prototype_contrast`.

`contrast` gives loss and log-sum-exp per pixel; `contrast_backward` reads the features a second
time; `contrast_with_gradient` writes the gradient of the reduced loss in the forward sweep.
"""

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, accumulation_dtype
from protocontrast.eager.similarity import Scored, Similarity
from protocontrast.eager.targets import Targets
from protocontrast.eager.tiles import Tile, holds_nonfinite, tiles, widened, without


def _prepare(call: ContrastCall) -> tuple[Similarity, Targets]:
    dtype = accumulation_dtype(call.features)
    similarity = Similarity(
        call.prototypes, call.present, call.similarity, call.temperature, call.keep_absent, dtype
    )
    return similarity, Targets(call, similarity, call.keep_absent)


def _score(features: Tensor, tile: Tile, similarity: Similarity, weight: Tensor) -> Scored:
    """The logits of a tile; an ignored pixel that holds NaN or infinity is read as 0."""
    block = widened(features, tile)
    scored = similarity.scores(block)
    if holds_nonfinite(scored.logits):
        return similarity.scores(without(block, tile.of(weight) == 0))
    return scored


def contrast(call: ContrastCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    similarity, targets = _prepare(call)
    loss, lse = torch.zeros_like(targets.weight), torch.zeros_like(targets.weight)
    for tile in tiles(call.features):
        scored = _score(call.features, tile, similarity, targets.weight)
        exponentials, peak = similarity.exponentials(scored.logits)
        total = exponentials.sum(dim=0).log_().add_(peak)
        weight = tile.of(targets.weight)
        target_logit = targets.target_logit(tile, similarity.with_offset(scored.logits))
        tile.of(loss).copy_(torch.where(weight == 0, 0, weight * total - target_logit))
        # An ignored pixel has no softmax, whatever its features hold.
        tile.of(lse).copy_(torch.where(weight == 0, torch.inf, total))
    return loss, targets.weight, lse


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, bool], lse: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of features and prototypes from those of the losses (B, P)."""
    features, (wants_features, wants_prototypes) = call.features, wants
    similarity, targets = _prepare(call)
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = torch.zeros_like(similarity.matrix)
    # What comes back to an ignored pixel may be anything, and a pixel to which nothing comes back
    # may hold anything: neither has a gradient.
    asked = torch.where(grad_output == 0, 0, targets.weight)
    for tile in tiles(features):
        scored = _score(features, tile, similarity, asked)
        weight = tile.of(targets.weight)
        unasked = tile.of(asked) == 0
        factor = torch.where(unasked, 0, tile.of(grad_output))
        total_log = torch.where(unasked, torch.inf, tile.of(lse))
        grad_logits = similarity.softmax(scored.logits, total_log).mul_(weight * factor)
        targets.subtract(tile, grad_logits, factor)
        similarity.pull_back(
            scored,
            grad_logits,
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    if not wants_prototypes:
        return gradient, call.prototypes.new_empty(0)
    return gradient, similarity.finish(total)


def contrast_with_gradient(
    call: ContrastCall, mean: bool, wants: tuple[bool, bool], gradient: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed or averaged loss () and its gradients, from one read of the features.

    `gradient` is where that of the features is written; None: a new tensor.
    """
    features, (wants_features, wants_prototypes) = call.features, wants
    similarity, targets = _prepare(call)
    if mean:
        targets.average()
    if gradient is None or not wants_features:
        gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    total = torch.zeros_like(similarity.matrix)
    losses = []
    for tile in tiles(features):
        scored = _score(features, tile, similarity, targets.weight)
        weight = tile.of(targets.weight)
        target_logit = targets.target_logit(tile, similarity.with_offset(scored.logits))
        grad_logits, peak = similarity.exponentials(scored.logits)
        mass = grad_logits.sum(dim=0)
        # No class is present where the mass is 0, and no pixel valid.
        grad_logits.mul_(torch.where(weight == 0, 0, weight / mass))
        total_log = mass.log_().add_(peak)
        losses.append(torch.where(weight == 0, 0, weight * total_log - target_logit).sum())
        targets.subtract(tile, grad_logits, None)
        similarity.pull_back(
            scored,
            grad_logits,
            tile.of(gradient) if wants_features else None,
            total if wants_prototypes else None,
        )
    loss = torch.stack(losses).sum() if losses else total.new_zeros(())
    return (
        loss,
        gradient,
        similarity.finish(total) if wants_prototypes else call.prototypes.new_empty(0),
    )


def scale_in_place(gradient: Tensor, factor: Tensor) -> Tensor:
    """Multiply a gradient by that of the loss it is of; on CPU a factor of 1 costs no pass.

    A factor of 0 leaves 0, whatever the gradient holds.
    """
    if factor.device.type == "cpu" and float(factor) in (0.0, 1.0):
        return gradient if float(factor) else gradient.zero_()
    return gradient.mul_(factor)
