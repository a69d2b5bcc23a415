"""The target's part of a step in one read: (M1), (M3), (M6) and (M7) for `target_pass`."""

import torch
from torch import Tensor

from protocontrast.calls import TargetPassCall
from protocontrast.eager.class_prototypes import add_marked
from protocontrast.eager.contrast import scale_in_place
from protocontrast.eager.lengths import Lengths, unit_columns
from protocontrast.eager.products import add_product
from protocontrast.eager.similarity import Scored, Similarity
from protocontrast.eager.tiles import accumulation_dtype, holds_nonfinite, tiles, widened, without
from protocontrast.eager.transfer import Nearest


class _Totals:
    """Class sums, counts and losses of the tiles so far."""

    def __init__(self, num_classes: int, channels: int, normalize: bool, like: Tensor) -> None:
        self.normalize = normalize
        self.sums = like.new_zeros(channels, num_classes)
        self.counts = like.new_zeros(num_classes)
        self.losses = like.new_zeros(num_classes)

    def add(
        self, block: Tensor, pixels: Lengths, member: Tensor, key: Tensor, nonfinite: bool
    ) -> None:
        """The sums of a tile (D, n) under one-hot labels (C, n), also given as floats, -1 for none.

        What is NaN or infinite in a `nonfinite` tile reaches its own class only: a product with
        one-hot labels would spread it to every class, since 0 * NaN is NaN.
        """
        if not nonfinite:
            if self.normalize:
                add_product(self.sums.t(), member * pixels.inverse, pixels.block)
            else:
                add_product(self.sums.t(), member, block)
            return
        unused = member.sum(dim=0) == 0
        if block.device.type != "cpu":
            add_marked(self.sums.t(), block, member, unused, self.normalize)
            return
        block = without(block, unused)
        if self.normalize:
            block = unit_columns(block)
        self.sums.index_add_(1, key.clamp(0, len(member) - 1).long(), block)

    def lose(self, log_mass: Tensor, logits: Tensor, mass: Tensor, nonfinite: bool) -> None:
        """The losses of a tile whose pixels count with a mass (C, n); 0 wins over NaN."""
        losses = (log_mass - logits).mul_(mass)
        self.losses += (torch.where(mass == 0, 0, losses) if nonfinite else losses).sum(dim=1)


def target_pass(call: TargetPassCall) -> tuple[Tensor, ...]:
    """Losses (C,), sums (C, D), counts (C,); fused labels, measure and log-sum-exp (B, P).

    The last results are the targets with transferred labels where they had no mass, and the
    gradient of the summed loss; what is not wanted comes back empty or 0.
    """
    features, static, targets, filling = call.features, call.static, call.targets, call.filling
    prototypes, counted, transfer = call.prototypes, call.counted, call.transfer
    dtype, ignore_index = accumulation_dtype(features), call.ignore_index
    images, channels, pixels = features.shape
    num_classes = len(prototypes)
    contrast = Similarity(
        prototypes, call.present, "cosine", call.temperature, call.keep_absent, dtype
    )
    near = Nearest(call.of_labels())
    one_product = not transfer or (call.nearest is None and near.confidence)
    matrix = contrast.matrix
    if counted is None:
        matrix, share = near.similarity.matrix, torch.zeros_like(contrast.matrix[:, 0])
    else:
        share = (counted & call.present).to(dtype)
        if not one_product:
            matrix = torch.cat([contrast.matrix, near.similarity.matrix])
    limit = torch.where(near.somewhere, call.threshold, torch.inf).to(dtype)
    classes = torch.arange(num_classes, dtype=dtype, device=features.device)[:, None]
    # Floats, in which comparisons are several times faster on CPU than in integers; -1: no class.
    given = None if static is None else torch.where(static == ignore_index, -1, static.to(dtype))
    keys, values = matrix.new_zeros(images, pixels), matrix.new_zeros(images, pixels)
    nowhere = matrix.new_full((), -1).expand(images, pixels)
    lse = matrix.new_full((images, pixels), torch.inf)
    gradient = torch.empty_like(features) if call.wants_gradient else features.new_empty(0)
    filled = features.new_empty(0)
    if targets is not None and transfer:
        filled = targets.new_empty(targets.shape)
    total = _Totals(num_classes, channels, call.normalize, matrix)
    for tile in tiles(features):
        block = widened(features, tile)
        products, read = contrast.scores(block, matrix)
        nonfinite = holds_nonfinite(products)
        logits = products[:num_classes]
        key = tile.of(nowhere)
        if transfer:
            nearby = products[-num_classes:]
            key, value = near.of(nearby.clone() if one_product else nearby)
            tile.of(values).copy_(value)
            key = torch.where(value >= limit, key, -1)
        soft = None if targets is None else tile.of(targets)
        if soft is not None and transfer:
            moved = torch.where(soft.sum(dim=0) == 0, key, -1) == classes
            each = 1 if filling is None else filling[tile.start : tile.stop].to(soft.dtype)
            soft = torch.where(moved, each, soft)
            tile.of(filled).copy_(soft)
        if given is not None:
            known = tile.of(given)
            key = torch.where(known >= 0, known, key) if transfer else known
        if 0 <= ignore_index < num_classes:
            key = torch.where(key == ignore_index, -1, key)
        tile.of(keys).copy_(key)
        member = torch.eq(key, classes, out=torch.empty_like(logits))
        total.counts += member.sum(dim=1)
        if call.wants_sums:
            total.add(block, read, member, key, nonfinite)
        if counted is None:
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
        log_whole = whole.log() if peak is None else whole.log().add_(peak)
        # An ignored pixel has no softmax, whatever its features hold.
        tile.of(lse).copy_(log_whole.masked_fill(weight == 0, torch.inf))
        total.lose(log_whole, contrast.with_offset(logits), mass, nonfinite)
        if call.wants_gradient:
            # It is 0 where no class is present, and then no pixel counts.
            grad_logits.mul_(torch.where(weight == 0, 0, weight / whole)).sub_(mass)
            contrast.pull_back(Scored(logits, read), grad_logits, tile.of(gradient), None)
    labels = torch.where(keys < 0, ignore_index, keys.long())
    losses = torch.where(share == 0, 0, total.losses)
    if static is not None and features.device.type != "cpu":
        # A value that is no class was refused on CPU; here it must not pass for one.
        wrong = ((static < 0) | (static >= num_classes)) & (static != ignore_index)
        losses = torch.where(wrong.any(), torch.nan, losses)
    # A pixel that is NaN may turn out ignored when its class is left out; else its logits are NaN.
    lse.masked_fill_(torch.isnan(lse), torch.inf)
    sums = total.sums.t().contiguous()
    return losses, sums, total.counts, labels, near.seen(values), lse, filled, gradient


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
