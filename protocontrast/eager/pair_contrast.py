"""Contrast between pairs of pixels, (M17) for `pair_contrast`, a tile of the pairs at a time.

All rows are sorted by label. Then the positives of a block of anchors, and the keys that are no
negatives of all of them, are one short stretch: everything else takes no mask, and most keys no
second look. Backward takes the scores again.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from protocontrast.calls import PairRolesCall
from protocontrast.eager.lengths import lengths, sizes
from protocontrast.eager.similarity import LARGEST_EXPONENT
from protocontrast.eager.tiles import accumulation_dtype

BLOCK = 256
TILE = 512
"""Anchors and keys of a tile: its scores take 0.5 MB, which stay in a core's caches.

So few that a product over either does not depend on the number of threads.
"""


def may_read(rows: Tensor) -> bool:
    """Whether looking at a value keeps nobody waiting."""
    return rows.device.type == "cpu"


class _Rows:
    """Rows that have a label, sorted by it, of unit length under cosine.

    On a CPU the others are left out; elsewhere that would make the host wait, so they stay as
    zeros, and masks tell them.
    """

    def __init__(self, given: Tensor, labels: Tensor, used: Tensor, kind: str) -> None:
        self.given = given
        self.kind = kind
        self.on_host = may_read(given)
        if self.on_host:
            kept = used.nonzero().squeeze(1)
            self.order = kept[torch.argsort(labels[kept], stable=True)]
        else:
            self.order = torch.argsort(labels, stable=True)
        self.labels = labels[self.order].contiguous()
        self.used = used[self.order]
        self.matrix = given[self.order].to(accumulation_dtype(given))
        if not self.on_host:  # a product mixes pixels: what an unused one holds must not reach it
            self.matrix.masked_fill_(~self.used[:, None], 0)
        if kind == "cosine":
            rows, inverse, self.size = lengths(self.matrix.t())
            self.matrix, self.inverse_length = rows.t().contiguous(), inverse.t()
            self.matrix.mul_(self.inverse_length)

    def blocks(self) -> list[slice]:
        """Anchors at a time."""
        count = len(self.matrix)
        return [slice(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]

    def stretches(self, anchors: "_Rows") -> list[tuple[int, int]]:
        """For each block of anchors where the rows with one of its labels begin and end."""
        blocks = anchors.blocks()
        if not self.on_host:
            return [(0, len(self.matrix))] * len(blocks)
        first = anchors.labels[[block.start for block in blocks]]
        last = anchors.labels[[block.stop - 1 for block in blocks]]
        begin = torch.searchsorted(self.labels, first)
        end = torch.searchsorted(self.labels, last, right=True)
        return list(zip(begin.tolist(), end.tolist(), strict=True))

    def add_gradient(self, total: Tensor, gradient: Tensor) -> None:
        """Add to the given rows' gradient what follows from that of `matrix`."""
        if self.kind == "cosine":
            radial = (self.matrix * total).sum(dim=1, keepdim=True)
            total.addcmul_(self.matrix, radial, value=-1).mul_(self.inverse_length)
            if self.size is not None:
                total.div_(self.size.t())
        gradient[self.order] += total.to(gradient.dtype)


def _tiles(begin: int, end: int) -> Iterator[slice]:
    """Keys at a time; sizes depend on shapes and labels alone, so sums have one order."""
    return (slice(i, min(i + TILE, end)) for i in range(begin, end, TILE))


class _Block(NamedTuple):
    """Anchors `rows`, their positives' and non-negatives' stretches."""

    rows: slice
    positives: tuple[int, int]
    same_class: tuple[int, int]


class _Pairs:
    """Anchors and keys made ready for one call."""

    def __init__(self, call: PairRolesCall, used: Tensor) -> None:
        self.kind = kind = call.similarity
        self.anchors = _Rows(call.anchors, call.anchor_labels, used, kind)
        labels = call.positive_labels, call.negative_labels
        is_positive, is_negative = (one != call.ignore_index for one in labels)
        self.positives = _Rows(call.keys, labels[0], is_positive, kind)
        self.negatives = self.positives
        if not (self.anchors.on_host and torch.equal(*labels)):
            self.negatives = _Rows(call.keys, labels[1], is_negative, kind)
        if kind == "euclidean":
            self._bring_near(call.temperature)
        else:
            self.scaled = self.anchors.matrix / call.temperature
        self.exclude_self = call.exclude_self
        self.bounded = kind == "cosine" and 1 / call.temperature <= LARGEST_EXPONENT

    def _bring_near(self, temperature: float) -> None:
        """Divide all rows by their largest number, so that squared distances stay numbers."""
        sides = [self.anchors, self.positives]
        if self.negatives is not self.positives:
            sides.append(self.negatives)
        parts = [side.matrix.detach().flatten() for side in sides if side.matrix.numel()]
        # One part at a time: each has a largest number of its own.
        largest = [part.abs().amax() for part in parts] or [self.anchors.matrix.new_ones(())]
        size = sizes(torch.stack(largest), 0)[0]
        for side in sides:
            side.matrix = side.matrix / size
        self.factor = -size / temperature
        self.scaled = self.anchors.matrix

    def distances(self, block: slice, keys: Tensor) -> Tensor:
        """(a, k) distances between some anchors and keys, over the largest number of all."""
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self.scaled[block], keys, compute_mode=exact)

    def scores(self, block: slice, keys: Tensor) -> Tensor:
        """(a, k) similarities over the temperature."""
        if self.kind == "euclidean":
            return self.distances(block, keys).mul_(self.factor)
        return self.scaled[block] @ keys.t()

    def blocks(self) -> Iterator[_Block]:
        """Anchors at a time, with where their labels lie among the keys."""
        sides = self.positives.stretches(self.anchors), self.negatives.stretches(self.anchors)
        return map(_Block, self.anchors.blocks(), *sides)

    def positive(self, block: slice, tile: slice) -> Tensor:
        """(a, k) which pairs share a class."""
        keys = self.positives
        positive = self.anchors.labels[block, None] == keys.labels[tile]
        if not keys.on_host:
            positive &= self.anchors.used[block, None] & keys.used[tile]
        if self.exclude_self:
            positive &= self.anchors.order[block, None] != keys.order[tile]
        return positive

    def hide_same_class(self, scores: Tensor, block: _Block, tile: slice) -> Tensor:
        """Scores (a, k) of negatives; -inf where a key is none."""
        begin, end = max(block.same_class[0], tile.start), min(block.same_class[1], tile.stop)
        if begin < end:
            own, others = self.anchors.labels[block.rows, None], self.negatives.labels[begin:end]
            same_class = own == others
            if not self.negatives.on_host:
                same_class |= ~self.negatives.used[begin:end]
            scores[:, begin - tile.start : end - tile.start].masked_fill_(same_class, -torch.inf)
        return scores


def _used(call: PairRolesCall) -> Tensor:
    labelled = call.anchor_labels != call.ignore_index
    return labelled if call.anchor_weight is None else labelled & (call.anchor_weight != 0)


def pair_contrast(call: PairRolesCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight (A,) of the anchors, and (3, A) what backward needs.

    That is the negatives' log-sum-exp and the weights of each positive pair and of the negatives
    together: +inf and twice 0 where an anchor does not count.
    """
    pairs, every = _Pairs(call, _used(call)), call.all_in_denominator
    order = pairs.anchors.order
    loss, mass, count = (torch.zeros_like(pairs.scaled[:, 0]) for _ in range(3))
    weight = torch.ones_like(loss)
    if call.anchor_weight is not None:
        weight = call.anchor_weight[order].to(loss.dtype)
    lse = torch.full_like(loss, -torch.inf)
    for block in pairs.blocks():
        rows = block.rows
        lse[rows] = _lse(pairs, block, every)
        for tile in _tiles(*block.positives):
            positive = pairs.positive(rows, tile)
            gap = lse[rows, None] - pairs.scores(rows, pairs.positives.matrix[tile])
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
    found = loss.new_zeros(5, len(call.anchors))
    found[2] = torch.inf
    found[:, order] = torch.stack([loss, weight, lse, per_positive, mass])
    return found[0].clone(), found[1].clone(), found[2:].clone()


def _lse(pairs: _Pairs, block: _Block, every: bool) -> Tensor:
    """The log-sum-exp of the negatives' scores, -inf where an anchor has none."""
    rows = block.rows
    total = pairs.scaled.new_zeros(rows.stop - rows.start)
    lse = torch.full_like(total, -torch.inf)
    for scores in _denominator(pairs, block, every):
        if pairs.bounded:  # a cosine over a temperature: exp needs no peak
            total += scores.exp_().sum(dim=1)
        else:
            lse = torch.logaddexp(lse, scores.logsumexp(dim=1))
    return total.log_() if pairs.bounded else lse


def _denominator(pairs: _Pairs, block: _Block, every: bool) -> Iterator[Tensor]:
    """Scores (a, k) of what stands in the sums, -inf elsewhere: negatives, then any positives."""
    rows, negatives, positives = block.rows, pairs.negatives.matrix, pairs.positives.matrix
    for tile in _tiles(0, len(negatives)):
        yield pairs.hide_same_class(pairs.scores(rows, negatives[tile]), block, tile)
    if every:
        for tile in _tiles(*block.positives):
            scores = pairs.scores(rows, positives[tile])
            yield scores.masked_fill_(~pairs.positive(rows, tile), -torch.inf)


def _pull_apart(
    grad_scores: Tensor,
    distance: Tensor,
    anchors: Tensor,
    keys: Tensor,
    to_anchors: Tensor | None,
    to_keys: Tensor | None,
) -> None:
    """Add what follows from dL/d(-distance), (a, k), to the sides' gradients; 0 at distance 0."""
    backward = torch.ops.aten._cdist_backward.default
    grad_scores = grad_scores.neg()
    if to_anchors is not None:
        to_anchors += backward(grad_scores, anchors, keys, 2.0, distance)
    if to_keys is not None:
        across = grad_scores.t().contiguous(), keys, anchors, 2.0, distance.t().contiguous()
        to_keys += backward(*across)


def pair_contrast_backward(
    grad_output: Tensor, call: PairRolesCall, wants: tuple[bool, bool], statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """(M17) gradients of anchors and keys from those of the losses (A,)."""
    (wants_anchors, wants_keys), every = wants, call.all_in_denominator
    anchors, keys, kind, temperature = call.anchors, call.keys, call.similarity, call.temperature
    # What comes back to an anchor that does not count may be anything, and an anchor to which
    # nothing comes back may hold anything: neither has a gradient.
    counted = (statistics[1] != 0) & (grad_output != 0)
    pairs = _Pairs(call, counted)
    order = pairs.anchors.order
    lse, per_positive, mass = statistics[:, order, None]
    factor = torch.where(counted, grad_output, 0)[order, None]
    per_positive, mass = per_positive * factor, mass * factor
    to_anchors = torch.zeros_like(pairs.scaled)
    to_positives = torch.zeros_like(pairs.positives.matrix)
    to_negatives = to_positives
    if pairs.negatives is not pairs.positives:
        to_negatives = torch.zeros_like(pairs.negatives.matrix)
    for block in pairs.blocks():
        rows = block.rows
        own, into, pushed = pairs.scaled[rows], to_anchors[rows], mass[rows] * pairs.scaled[rows]
        for tile in _tiles(0, len(pairs.negatives.matrix)):
            others = pairs.negatives.matrix[tile]
            if kind == "euclidean":
                distance = pairs.distances(rows, others)
                scores = torch.addcmul(lse[rows].neg(), distance, pairs.factor)
                grad_scores = pairs.hide_same_class(scores, block, tile).exp_().mul_(mass[rows])
                _pull_apart(
                    grad_scores, distance, own, others,
                    into if wants_anchors else None, to_negatives[tile] if wants_keys else None,
                )  # fmt: skip
                continue
            scores = torch.addmm(lse[rows].neg(), own, others.t())
            share = pairs.hide_same_class(scores, block, tile).exp_()
            if wants_anchors:
                into.addcmul_(share @ others, mass[rows])
            if wants_keys:
                to_negatives[tile].addmm_(share.t(), pushed)
        for tile in _tiles(*block.positives):
            others = pairs.positives.matrix[tile]
            if kind == "euclidean":
                distance = pairs.distances(rows, others)
                gap = torch.addcmul(lse[rows], distance, pairs.factor, value=-1)
            else:
                gap = torch.addmm(lse[rows], own, others.t(), alpha=-1)
            if every:
                grad_scores = gap.neg_().exp_().mul_(mass[rows]).sub_(per_positive[rows])
            else:
                grad_scores = gap.sigmoid_().mul_(-per_positive[rows])
            grad_scores.masked_fill_(~pairs.positive(rows, tile), 0)
            if kind == "euclidean":
                _pull_apart(
                    grad_scores, distance, own, others,
                    into if wants_anchors else None, to_positives[tile] if wants_keys else None,
                )  # fmt: skip
                continue
            if wants_anchors:
                into.addmm_(grad_scores, others)
            if wants_keys:
                to_positives[tile].addmm_(grad_scores.t(), own)
    gradients = anchors.new_empty(0), keys.new_empty(0)
    if wants_anchors:
        gradients = torch.zeros_like(anchors), gradients[1]
        pairs.anchors.add_gradient(to_anchors.div_(temperature), gradients[0])
    if wants_keys:
        if kind == "euclidean":
            for total in {id(total): total for total in (to_positives, to_negatives)}.values():
                total.div_(temperature)
        gradients = gradients[0], torch.zeros_like(keys)
        pairs.positives.add_gradient(to_positives, gradients[1])
        if pairs.negatives is not pairs.positives:
            pairs.negatives.add_gradient(to_negatives, gradients[1])
    return gradients
