"""Contrast between pairs of pixels: (M17) for `pair_contrast`, forward.

A program has a block of anchors and a span of keys: first for the log-sum-exp of the anchors'
negatives, then, in a second launch, for their positives against it. What spans leave is added in
order. Its gradients are in pair_contrast_backward.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall, accumulation_dtype
from protocontrast.kernels.launch import tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.pairs import (
    load_rows,
    pair_launch,
    place,
    rows_at,
    scored_pairs,
    sides_of,
    span_of_pairs,
)
from protocontrast.kernels.tiles import inside


@triton.jit
def pair_normaliser_kernel(side, other, per_row, partial, meta: tl.constexpr):
    """The log-sum-exp of a block of anchors' negatives within a span of keys, -inf for none."""
    META: tl.constexpr = constants(meta)
    block, span, first = place(side, META)
    anchors = rows_at(side, block * META.BLOCK_P, META)
    scale = load_rows(per_row.scale, anchors, 0.0)
    peak = tl.full([META.BLOCK_P], float("-inf"), dtype=META.ACC)
    total = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        keys = rows_at(other, first + step, META)
        scores, _, negative = scored_pairs(anchors, keys, scale, per_row, META)
        scores = tl.where(negative, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=0))
        # Where there was no negative yet, -inf less -inf would be NaN.
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - safe) + tl.sum(tl.exp(scores - safe[None, :]), axis=0)
        peak = higher
    lse = tl.where(total == 0.0, float("-inf"), peak + tl.log(total))
    tl.store(partial + span * side.pixels + anchors.offs, lse, mask=inside(anchors))


@triton.jit
def pair_contrast_kernel(side, other, per_row, lse_ptr, partial, meta: tl.constexpr):
    """Sums over a block of anchors' positives within a span of keys: loss, slope and count."""
    META: tl.constexpr = constants(meta)
    block, span, first = place(side, META)
    anchors = rows_at(side, block * META.BLOCK_P, META)
    scale = load_rows(per_row.scale, anchors, 0.0)
    lse = load_rows(lse_ptr, anchors, 0.0)
    loss = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    slope = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    count = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        keys = rows_at(other, first + step, META)
        scores, positive, _ = scored_pairs(anchors, keys, scale, per_row, META)
        gap = lse[None, :] - scores
        if not META.ALL:
            # log(1 + e^gap), and its slope; e^-|gap| is at most 1.
            small = tl.exp(-tl.abs(gap))
            share = tl.where(gap > 0.0, 1.0, small) / (1.0 + small)
            slope += tl.sum(tl.where(positive, share, 0.0), axis=0)
            gap = tl.where(gap > 0.0, gap, 0.0) + tl.log(1.0 + small)
        loss += tl.sum(tl.where(positive, gap, 0.0), axis=0)
        count += tl.sum(positive.to(META.ACC), axis=0)
    rows = side.pixels
    into = partial + span * 3 * rows + anchors.offs
    tl.store(into, loss, mask=inside(anchors))
    tl.store(into + rows, slope, mask=inside(anchors))
    tl.store(into + rows + rows, count, mask=inside(anchors))


def pair_contrast(call: PairRolesCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight (A,) of the anchors, and (3, A) what backward needs.

    That is the negatives' log-sum-exp and the weights of each positive pair and of the negatives
    together: +inf and twice 0 where an anchor does not count.
    """
    anchors, keys = call.anchors, call.keys
    count, dtype = len(anchors), accumulation_dtype(anchors)
    if count == 0 or len(keys) == 0:
        nothing = anchors.new_zeros(5, count, dtype=dtype)
        nothing[2] = torch.inf
        return nothing[0].clone(), nothing[1].clone(), nothing[2:].clone()
    span = span_of_pairs(count, len(keys))
    spans = tile_count(len(keys), span)
    shared = "pair_contrast", sides_of(call), call, span
    logs = anchors.new_empty(spans, count, dtype=dtype)
    pair_launch(pair_normaliser_kernel, *shared, (logs,))
    lse = logs.logsumexp(dim=0)
    sums = anchors.new_empty(spans, 3, count, dtype=dtype)
    pair_launch(pair_contrast_kernel, *shared, (lse, sums))
    loss, slope, positives = sums.sum(dim=0)
    used = (positives != 0) & (call.anchor_labels != call.ignore_index)
    weight = torch.ones_like(loss)
    if call.anchor_weight is not None:
        weight = call.anchor_weight.to(dtype)
    weight = torch.where(used, weight, 0)
    per_positive = weight / positives.clamp_min(1)
    counted = weight != 0
    mass = weight if call.all_in_denominator else torch.where(counted, per_positive * slope, 0)
    # exp(s - inf) = 0: an anchor that does not count pulls nothing, whatever it holds.
    statistics = [torch.where(counted, lse, torch.inf), per_positive, mass]
    return torch.where(counted, per_positive * loss, 0), weight, torch.stack(statistics)
