"""Contrast between pairs of pixels, (M17) for `pair_contrast`, a tile of the pairs at a time.

Forward goes over the keys twice, for the log-sum-exp of the negatives and for the positives against
it; backward takes the scores again, once. Masks say which pairs count, and no value is looked at.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from protocontrast.calls import PairRolesCall, accumulation_dtype
from protocontrast.eager.lengths import lengths, sizes

BLOCK = 256
TILE = 512
"""Anchors and keys of a tile: its scores take 0.5 MB, which stay in a core's caches.

So few that a product over either does not depend on the number of threads.
"""
FAR = 2.0**50
"""Rows up to here are compared as they are; one that lies farther must not hide the others."""


class _Rows:
    """Rows in the accumulation dtype, of unit length under cosine; unused ones are 0."""

    def __init__(self, given: Tensor, used: Tensor, kind: str) -> None:
        self.given, self.kind = given, kind
        # A product mixes pixels: what an unused one holds must not reach it.
        self.matrix = torch.where(used[:, None], given, 0).to(accumulation_dtype(given))
        if kind == "cosine":
            rows, inverse, self.size = lengths(self.matrix.t())
            self.inverse_length = inverse.t()
            self.matrix = rows.t() * self.inverse_length

    def gradient(self, total: Tensor) -> Tensor:
        """That of the given rows from that of `matrix`, which is overwritten."""
        if self.kind == "cosine":
            radial = (self.matrix * total).sum(dim=1, keepdim=True)
            total.addcmul_(self.matrix, radial, value=-1).mul_(self.inverse_length)
            if self.size is not None:
                total.div_(self.size.t())
        return total.to(self.given.dtype)


class _Pairs:
    """Anchors and keys made ready for one call."""

    def __init__(self, call: PairRolesCall, used: Tensor) -> None:
        self.call, self.used, kind = call, used, call.similarity
        labels = call.positive_labels, call.negative_labels
        self.is_positive, self.is_negative = (one != call.ignore_index for one in labels)
        self.anchors = _Rows(call.anchors, used, kind)
        self.keys = _Rows(call.keys, self.is_positive | self.is_negative, kind)
        self.factor: float | Tensor = 1.0
        self.apart = kind == "euclidean"
        if self.apart:
            # Over a power of two, so that squared distances stay numbers; 1 where they are.
            sides = self.anchors, self.keys
            largest = [one.matrix.abs().amax() for one in sides if one.matrix.numel()]
            size = sizes(torch.stack(largest or [call.anchors.new_ones(())]), 0)[0]
            size = torch.where(size > 1, (size / FAR).clamp_min(1), size)
            for one in sides:
                one.matrix = one.matrix / size
            self.factor = -size / call.temperature
        self.scaled = self.anchors.matrix
        if not self.apart:
            self.scaled = self.scaled / call.temperature

    def blocks(self) -> Iterator[slice]:
        """Anchors at a time."""
        return _parts(len(self.scaled), BLOCK)

    def tiles(self) -> Iterator[slice]:
        """Keys at a time."""
        return _parts(len(self.keys.matrix), TILE)

    def products(self, block: slice, tile: slice) -> Tensor:
        """(a, k) scores, or distances over the largest number of all, which `factor` makes such."""
        own, others = self.scaled[block], self.keys.matrix[tile]
        if not self.apart:
            return own @ others.t()
        return torch.cdist(own, others, compute_mode="donot_use_mm_for_euclid_dist")

    def positive(self, block: slice, tile: slice) -> Tensor:
        """(a, k) which pairs share a class."""
        call = self.call
        found = call.anchor_labels[block, None] == call.positive_labels[tile]
        found &= self.used[block, None] & self.is_positive[tile]
        if call.exclude_self:
            index = torch.arange(len(found), device=found.device)[:, None] + block.start
            found &= index != torch.arange(tile.start, tile.stop, device=found.device)
        return found

    def opposed(self, block: slice, tile: slice, positive: Tensor) -> Tensor:
        """(a, k) which pairs stand in the denominator beside the positive itself."""
        found = self.call.anchor_labels[block, None] != self.call.negative_labels[tile]
        found &= self.is_negative[tile]
        return found | positive if self.call.all_in_denominator else found


def _parts(count: int, size: int) -> Iterator[slice]:
    """Sizes depend on shapes alone, so sums have one order."""
    return (slice(i, min(i + size, count)) for i in range(0, count, size))


def pair_contrast(call: PairRolesCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight (A,) of the anchors, and (3, A) what backward needs.

    That is the negatives' log-sum-exp and the weights of each positive pair and of the negatives
    together: +inf and twice 0 where an anchor does not count.
    """
    used = call.anchor_labels != call.ignore_index
    if call.anchor_weight is not None:
        used = used & (call.anchor_weight != 0)
    pairs, every = _Pairs(call, used), call.all_in_denominator
    loss, mass, count = (torch.zeros_like(pairs.scaled[:, 0]) for _ in range(3))
    weight = torch.ones_like(loss)
    if call.anchor_weight is not None:
        weight = call.anchor_weight.to(loss.dtype)
    lse = torch.full_like(loss, -torch.inf)
    for rows in pairs.blocks():
        for tile in pairs.tiles():
            scores = pairs.products(rows, tile).mul_(pairs.factor)
            opposed = pairs.opposed(rows, tile, pairs.positive(rows, tile))
            scores.masked_fill_(~opposed, -torch.inf)
            lse[rows] = torch.logaddexp(lse[rows], scores.logsumexp(dim=1))
        for tile in pairs.tiles():
            positive = pairs.positive(rows, tile)
            gap = lse[rows, None] - pairs.products(rows, tile).mul_(pairs.factor)
            count[rows] += positive.sum(dim=1)
            if not every:
                mass[rows] += gap.sigmoid().masked_fill_(~positive, 0).sum(dim=1)
                gap = F.softplus(gap, threshold=50)
            loss[rows] += gap.masked_fill_(~positive, 0).sum(dim=1)
    counted = count != 0
    weight = torch.where(counted, weight, 0)
    per_positive = weight / count.clamp_min(1)
    loss = torch.where(counted, per_positive * loss, 0)
    mass = weight if every else torch.where(counted, per_positive * mass, 0)
    # exp(s - inf) = 0: an anchor that does not count pulls nothing, whatever it holds.
    lse = torch.where(counted, lse, torch.inf)
    return loss, weight, torch.stack([lse, per_positive, mass])


def pair_contrast_backward(
    grad_output: Tensor, call: PairRolesCall, wants: tuple[bool, bool], statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """(M17) gradients of anchors and keys from those of the losses (A,)."""
    # What comes back to an anchor that does not count may be anything, and an anchor to which
    # nothing comes back may hold anything: neither has a gradient.
    counted = (statistics[1] != 0) & (grad_output != 0)
    pairs = _Pairs(call, counted)
    lse, per_positive, mass = torch.where(counted, statistics, 0)[..., None]
    factor = torch.where(counted, grad_output, 0)[:, None]
    per_positive, mass = per_positive * factor, mass * factor
    lse = torch.where(counted[:, None], lse, torch.inf)
    to_anchors, to_keys = torch.zeros_like(pairs.scaled), torch.zeros_like(pairs.keys.matrix)
    for rows in pairs.blocks():
        for tile in pairs.tiles():
            found, positive = pairs.products(rows, tile), pairs.positive(rows, tile)
            distance = found if pairs.apart else None
            gap = found * pairs.factor - lse[rows]
            pulled = per_positive[rows]
            if not call.all_in_denominator:
                pulled = gap.neg().sigmoid_().mul_(pulled)
            pushed = gap.masked_fill_(~pairs.opposed(rows, tile, positive), -torch.inf).exp_()
            slope = pushed.mul_(mass[rows]).sub_(torch.where(positive, pulled, 0))
            own, others = pairs.scaled[rows], pairs.keys.matrix[tile]
            if wants[0]:
                to_anchors[rows] += _pulled(slope, own, others, distance)
            if wants[1]:
                across = None if distance is None else distance.t().contiguous()
                to_keys[tile] += _pulled(slope.t().contiguous(), others, own, across)
    gradients = call.anchors.new_empty(0), call.keys.new_empty(0)
    if wants[0]:
        gradients = pairs.anchors.gradient(to_anchors.div_(call.temperature)), gradients[1]
    if wants[1]:
        to_keys = to_keys.div_(call.temperature) if pairs.apart else to_keys
        gradients = gradients[0], pairs.keys.gradient(to_keys)
    return gradients


def _pulled(slope: Tensor, rows: Tensor, others: Tensor, distance: Tensor | None) -> Tensor:
    """What follows for rows (a, D) from the slope (a, k) of products with others, or -distances."""
    if distance is None:
        return slope @ others
    return torch.ops.aten._cdist_backward.default(slope.neg(), rows, others, 2.0, distance)
