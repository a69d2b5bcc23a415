"""Contrast between pairs of pixels, (M17) for `pair_contrast`, a tile of the pairs at a time.

`pair_contrast` walks the keys twice: the log-sum-exp of an anchor's rivals first, then its
positives against it. `pair_contrast_backward` takes the scores a third time. Both sides are sorted
by label, so that most tiles hold no positive pair and a CPU passes them over the second time.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from protocontrast.eager.similarity import LARGEST_EXPONENT
from protocontrast.eager.tiles import accumulation_dtype

BLOCK = 256
TILE = 1024
"""Anchors and keys of a tile: its scores take 1 MB, which stays in a core's caches."""


class _Rows:
    """One side's rows, sorted by label: of unit length under cosine, 0 where not used."""

    def __init__(
        self, rows: Tensor, labels: Tensor, used: Tensor, kind: str, temperature: float
    ) -> None:
        self.given = rows
        self.kind = kind
        self.temperature = temperature
        self.order = torch.argsort(labels, stable=True)
        # A product mixes pixels: what an unused one holds must not reach it.
        unused = ~used[self.order]
        dtype = accumulation_dtype(rows)
        self.matrix = rows[self.order].to(dtype).masked_fill_(unused[:, None], 0)
        if kind == "cosine":
            squared = self.matrix.square().sum(dim=1, keepdim=True)
            self.inverse_length = squared.rsqrt().masked_fill_(squared == 0, 0)
            self.matrix.mul_(self.inverse_length)

    def finish(self, total: Tensor) -> Tensor:
        """The given rows' gradient from that of the scores' products, in their memory format."""
        total.div_(self.temperature)
        if self.kind == "cosine":
            radial = (self.matrix * total).sum(dim=1, keepdim=True)
            total.addcmul_(self.matrix, radial, value=-1).mul_(self.inverse_length)
        gradient = torch.empty_like(self.given)
        gradient[self.order] = total.to(gradient.dtype)
        return gradient


class _Pairs:
    """Anchors and keys made ready for one call."""

    def __init__(
        self,
        anchors: Tensor,
        anchor_labels: Tensor,
        keys: Tensor,
        positive_labels: Tensor,
        negative_labels: Tensor,
        used: Tensor,
        kind: str,
        temperature: float,
        every: bool,
        exclude_self: bool,
        ignore_index: int,
    ) -> None:
        self.anchors = _Rows(anchors, anchor_labels, used, kind, temperature)
        labelled = (positive_labels != ignore_index) | (negative_labels != ignore_index)
        self.keys = _Rows(keys, positive_labels, labelled, kind, temperature)
        self.used = used[self.anchors.order]
        self.anchor_labels = anchor_labels[self.anchors.order]
        self.positive_labels = positive_labels[self.keys.order]
        self.negative_labels = negative_labels[self.keys.order]
        self.temperature = temperature
        self.every = every
        self.exclude_self = exclude_self
        self.ignore_index = ignore_index
        self.bounded = kind == "cosine" and 1 / temperature <= LARGEST_EXPONENT
        self.on_host = anchors.device.type == "cpu"

    def blocks(self) -> Iterator[slice]:
        """Anchors at a time."""
        count = len(self.anchors.matrix)
        return (slice(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK))

    def tiles(self) -> Iterator[slice]:
        """Keys at a time; sizes depend on shapes alone, so sums have one order."""
        count = len(self.keys.matrix)
        return (slice(i, min(i + TILE, count)) for i in range(0, count, TILE))

    def scores(self, block: slice, tile: slice) -> Tensor:
        """(a, k) similarities over the temperature."""
        product = self.anchors.matrix[block] @ self.keys.matrix[tile].t()
        return product.div_(self.temperature)

    def positives(self, block: slice, tile: slice) -> Tensor | None:
        """(a, k) which pairs share a class; None where a CPU sees that none does."""
        own = self.anchor_labels[block, None]
        positive = own == self.positive_labels[tile]
        positive &= self.used[block, None]
        if self.exclude_self:
            positive &= self.anchors.order[block, None] != self.keys.order[tile]
        return None if self.on_host and not bool(positive.any()) else positive

    def rivals(self, block: slice, tile: slice, positive: Tensor | None) -> Tensor:
        """(a, k) which keys stand in an anchor's denominator beside the positive itself."""
        own, others = self.anchor_labels[block, None], self.negative_labels[tile]
        rival = (own != others).logical_and_(self.used[block, None])
        rival &= others != self.ignore_index
        if self.every and positive is not None:
            rival |= positive
        return rival


def _used(anchor_labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    labelled = anchor_labels != ignore_index
    return labelled if weight is None else labelled & (weight != 0)


def pair_contrast(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    positive_labels: Tensor,
    negative_labels: Tensor,
    anchor_weight: Tensor | None,
    kind: str,
    temperature: float,
    every: bool,
    exclude_self: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight (A,) of the anchors, and (3, A) what backward needs.

    That is the rivals' log-sum-exp and the weights of each positive pair and of the rivals
    together: +inf and twice 0 where an anchor does not count.
    """
    pairs = _Pairs(
        anchors, anchor_labels, keys, positive_labels, negative_labels,
        _used(anchor_labels, anchor_weight, ignore_index),
        kind, temperature, every, exclude_self, ignore_index,
    )  # fmt: skip
    dtype = accumulation_dtype(anchors)
    order = pairs.anchors.order
    weight = torch.ones_like(order, dtype=dtype)
    if anchor_weight is not None:
        weight = anchor_weight[order].to(dtype)
    loss, mass, count = (torch.zeros_like(weight) for _ in range(3))
    normaliser = torch.full_like(weight, -torch.inf)
    for block in pairs.blocks():
        normaliser[block] = _normaliser(pairs, block)
        for tile in pairs.tiles():
            positive = pairs.positives(block, tile)
            if positive is None:
                continue
            gap = normaliser[block, None] - pairs.scores(block, tile)
            count[block] += positive.sum(dim=1)
            if not every:
                mass[block] += gap.sigmoid().masked_fill_(~positive, 0).sum(dim=1)
                gap = F.softplus(gap, threshold=50)
            loss[block] += gap.masked_fill_(~positive, 0).sum(dim=1)
    counted = count != 0
    weight = torch.where(counted, weight, 0)
    per_positive = weight / count.clamp_min(1)
    loss = torch.where(counted, per_positive * loss, 0)
    mass = weight if every else torch.where(counted, per_positive * mass, 0)
    # exp(s - inf) = 0: an anchor that does not count pulls nothing, whatever it holds.
    normaliser = torch.where(counted, normaliser, torch.inf)
    backwards = torch.empty_like(order)
    backwards[order] = torch.arange(len(order), device=order.device)
    statistics = torch.stack([normaliser, per_positive, mass])
    return loss[backwards], weight[backwards], statistics[:, backwards]


def _normaliser(pairs: _Pairs, block: slice) -> Tensor:
    """The log-sum-exp of the rivals' scores, -inf where an anchor has none."""
    width = block.stop - block.start
    total = pairs.anchors.matrix.new_zeros(width)
    normaliser = torch.full_like(total, -torch.inf)
    for tile in pairs.tiles():
        positive = pairs.positives(block, tile) if pairs.every else None
        absent = pairs.rivals(block, tile, positive).logical_not_()
        scores = pairs.scores(block, tile)
        if pairs.bounded:  # a cosine over a temperature: exp needs no peak
            total += scores.exp_().masked_fill_(absent, 0).sum(dim=1)
        else:
            part = scores.masked_fill_(absent, -torch.inf).logsumexp(dim=1)
            normaliser = torch.logaddexp(normaliser, part)
    return total.log_() if pairs.bounded else normaliser


def pair_contrast_backward(
    upstream: Tensor,
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    positive_labels: Tensor,
    negative_labels: Tensor,
    statistics: Tensor,
    kind: str,
    temperature: float,
    every: bool,
    exclude_self: bool,
    ignore_index: int,
    wants_anchors: bool,
    wants_keys: bool,
) -> tuple[Tensor, Tensor]:
    """(M17) gradients of sum_i upstream_i loss_i; one that is not wanted comes back empty."""
    counted = statistics[1] != 0
    pairs = _Pairs(
        anchors, anchor_labels, keys, positive_labels, negative_labels, counted,
        kind, temperature, every, exclude_self, ignore_index,
    )  # fmt: skip
    order = pairs.anchors.order
    normaliser, per_positive, mass = statistics[:, order, None]
    # The upstream gradient of an anchor that does not count may be anything.
    factor = torch.where(counted, upstream, 0)[order, None]
    per_positive, mass = per_positive * factor, mass * factor
    to_anchors, to_keys = (torch.zeros_like(side.matrix) for side in (pairs.anchors, pairs.keys))
    for block in pairs.blocks():
        for tile in pairs.tiles():
            scores = pairs.scores(block, tile)
            positive = pairs.positives(block, tile)
            absent = pairs.rivals(block, tile, positive).logical_not_()
            slope = (scores - normaliser[block]).exp_().masked_fill_(absent, 0).mul_(mass[block])
            if positive is not None:
                pull = per_positive[block] * positive
                if not every:
                    pull *= (normaliser[block] - scores).sigmoid_()
                slope -= pull
            if wants_anchors:
                to_anchors[block].addmm_(slope, pairs.keys.matrix[tile])
            if wants_keys:
                to_keys[tile].addmm_(slope.t(), pairs.anchors.matrix[block])
    return (
        pairs.anchors.finish(to_anchors) if wants_anchors else anchors.new_empty(0),
        pairs.keys.finish(to_keys) if wants_keys else keys.new_empty(0),
    )
