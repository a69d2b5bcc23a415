"""The target's part of a step in one read: (M1), (M3), (M6) and (M7) for `target_pass`."""

import torch
from torch import Tensor

from protocontrast.calls import TargetPassCall, accumulation_dtype
from protocontrast.eager.class_prototypes import add_marked
from protocontrast.eager.contrast import scale_in_place
from protocontrast.eager.lengths import unit_columns
from protocontrast.eager.products import add_product
from protocontrast.eager.similarity import Scored, Similarity
from protocontrast.eager.tiles import holds_nonfinite, tiles, widened, without
from protocontrast.eager.transfer import Nearest


def target_pass(call: TargetPassCall) -> tuple[Tensor, ...]:
    """Losses (C,), sums (C, D), counts (C,); fused labels, measure and log-sum-exp (B, P).

    The last results are the targets with transferred labels where they had no mass, and the
    gradient of the summed loss; what is not wanted comes back empty or 0.
    """
    features, static, targets, filling = call.features, call.static, call.targets, call.filling
    dtype, ignore_index = accumulation_dtype(features), call.ignore_index
    images, _, pixels = features.shape
    num_classes = len(call.prototypes)
    contrast = Similarity(
        call.prototypes, call.present, "cosine", call.temperature, call.keep_absent, dtype
    )
    near = Nearest(call.of_labels())
    share = call.used().to(dtype)
    limit = torch.where(near.somewhere, call.threshold, torch.inf).to(dtype)
    classes = torch.arange(num_classes, dtype=dtype, device=features.device)[:, None]
    # Floats, in which comparisons are several times faster on CPU than in integers; -1: no class.
    given = None if static is None else torch.where(static == ignore_index, -1, static.to(dtype))
    keys, values = (
        torch.zeros(images, pixels, dtype=dtype, device=features.device) for _ in range(2)
    )
    lse = torch.full_like(values, torch.inf)
    gradient = torch.empty_like(features) if call.wants_gradient else features.new_empty(0)
    filled = features.new_empty(0)
    if targets is not None and call.transfer:
        filled = targets.new_empty(targets.shape)
    sums = torch.zeros_like(contrast.matrix)
    counts, losses = torch.zeros_like(share), torch.zeros_like(share)
    for tile in tiles(features):
        block = widened(features, tile)
        logits, read = contrast.scores(block)
        nonfinite = holds_nonfinite(logits)
        key = torch.full_like(block[0], -1)
        if call.transfer:
            key, value = near.of(near.similarity.scores(block).logits)
            tile.of(values).copy_(value)
            key = torch.where(value >= limit, key, -1)
        soft = None if targets is None else tile.of(targets)
        if soft is not None and call.transfer:
            moved = torch.where(soft.sum(dim=0) == 0, key, -1) == classes
            each = 1 if filling is None else filling[tile.start : tile.stop].to(soft.dtype)
            soft = torch.where(moved, each, soft)
            tile.of(filled).copy_(soft)
        if given is not None:
            known = tile.of(given)
            key = torch.where(known >= 0, known, key)
        if 0 <= ignore_index < num_classes:
            key = torch.where(key == ignore_index, -1, key)
        tile.of(keys).copy_(key)
        member = torch.eq(key, classes, out=torch.empty_like(logits))
        counts += member.sum(dim=1)
        if call.wants_sums:
            rows = unit_columns(block) if call.normalize else block
            (add_marked if nonfinite else add_product)(sums, member, rows)
        if call.counted is None:
            continue
        mass = member * share[:, None]
        if soft is not None:
            soft = soft.to(dtype)
            mass = torch.where((share[:, None] == 0) | (soft == 0), 0, soft * share[:, None])
        weight = mass.sum(dim=0)
        if nonfinite:
            logits, read = contrast.scores(without(block, weight == 0))
        grad_logits, peak = contrast.exponentials(logits)
        whole = grad_logits.sum(dim=0)
        log_whole = whole.log().add_(peak)
        # An ignored pixel has no softmax, whatever its features hold.
        tile.of(lse).copy_(log_whole.masked_fill(weight == 0, torch.inf))
        parts = (log_whole - contrast.with_offset(logits)).mul_(mass)
        losses += (torch.where(mass == 0, 0, parts) if nonfinite else parts).sum(dim=1)
        if call.wants_gradient:
            # It is 0 where no class is present, and then no pixel counts.
            grad_logits.mul_(torch.where(weight == 0, 0, weight / whole)).sub_(mass)
            contrast.pull_back(Scored(logits, read), grad_logits, tile.of(gradient), None)
    labels = torch.where(keys < 0, ignore_index, keys.long())
    losses = torch.where(share == 0, 0, losses)
    if static is not None and features.device.type != "cpu":
        # A value that is no class was refused on CPU; here it must not pass for one.
        wrong = ((static < 0) | (static >= num_classes)) & (static != ignore_index)
        losses = torch.where(wrong.any(), torch.nan, losses)
    # A pixel that is NaN may turn out ignored when its class is left out; else its logits are NaN.
    lse.masked_fill_(torch.isnan(lse), torch.inf)
    return losses, sums, counts, labels, near.seen(values), lse, filled, gradient


def scaled(
    gradient: Tensor, weights: Tensor, used: Tensor, labels: Tensor, ignore_index: int
) -> Tensor | None:
    """The gradient times the weights (C,) of its pixels' classes, in place.

    None where `used` classes differ and pixels have several, in soft targets (B, C, P).
    """
    low = torch.where(used, weights, torch.inf).amin()
    high = torch.where(used, weights, -torch.inf).amax()
    if bool(low > high):  # no class is used, and the gradient is 0
        return gradient
    if bool(low == high):
        return scale_in_place(gradient, high)
    if labels.is_floating_point():
        return None
    factors = torch.where(used, weights, 0)
    for tile in tiles(gradient):
        label = tile.of(labels)
        ignored = label == ignore_index
        factor = factors[torch.where(ignored, 0, label)].masked_fill_(ignored, 0)
        into = tile.of(gradient).mul_(factor)
        if holds_nonfinite(into):
            into.masked_fill_(factor == 0, 0)
    return gradient
