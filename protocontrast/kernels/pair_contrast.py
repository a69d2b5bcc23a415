"""Contrast between pairs of pixels, (M17) for `pair_contrast`, and its gradients.

A program has a block of anchors and a span of keys: first for the log-sum-exp of the anchors'
negatives, then, in a second launch, for their positives against it. What spans leave is added in
order. Backward is one launch for each side: a program walks a span of the other side's rows, takes
the scores again, and adds their gradient times these rows to its block's slot.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall, accumulation_dtype
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.launch import SLOT_BYTES, family, tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.pairs import (
    Side,
    gaps,
    load_rows,
    pair_launch,
    place,
    products,
    read_products,
    roles,
    rows_at,
    scored_pairs,
    sides_of,
    span_of_pairs,
)
from protocontrast.kernels.scores import weighted_sum
from protocontrast.kernels.tiles import inside, load_tile


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
        # Of an infinite peak, as where there was no negative yet, what is less would be NaN.
        safe = tl.where(tl.abs(higher) == float("inf"), 0.0, higher)
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


@triton.jit
def of_anchors(statistics, tile):
    """Log-sum-exp, pull and push of anchors; 0 weighs what lies outside."""
    lse = load_rows(statistics, tile, float("inf"))
    pull = load_rows(statistics + tile.features.pixels, tile, 0.0)
    push = load_rows(statistics + tile.features.pixels + tile.features.pixels, tile, 0.0)
    return lse, pull, push


@triton.jit
def grad_scores_of(scores, lse, pull, push, positive, negative, ALL: tl.constexpr):
    """dL/ds of pairs; exactly 0 where an anchor does not count, whatever it holds."""
    relative = tl.exp(scores - lse)
    counts = pull != 0.0
    grad_logits = tl.where(negative & counts, push * relative, 0.0)
    if ALL:
        return grad_logits - tl.where(positive & counts, pull + tl.zeros_like(scores), 0.0)
    else:
        return grad_logits - tl.where(positive & counts, pull / (1.0 + relative), 0.0)


@triton.jit
def pair_contrast_backward_kernel(
    side, other, per_row, statistics, partial, radial_ptr, meta: tl.constexpr
):
    """Rows are the anchors or, OF_KEYS, the keys; others the other side."""
    META: tl.constexpr = constants(meta)
    DISTANCE: tl.constexpr = META.SIMILARITY == "euclidean"
    RESIDENT: tl.constexpr = (META.BLOCK_D >= META.D) & (META.SIMILARITY != "euclidean")
    block, span, first = place(side, META)
    rows = rows_at(side, block * META.BLOCK_P, META)
    scale = load_rows(per_row.scale, rows, 0.0)
    number = (span * tl.cdiv(side.pixels, META.BLOCK_P) + block) * META.BLOCK_P
    slot = partial + number * META.D
    radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    every_d = tl.arange(0, META.BLOCK_D)
    if RESIDENT:
        whole = tl.zeros([META.BLOCK_D, META.BLOCK_P], dtype=META.ACC)
        right = load_tile(rows, every_d, META)
    for step in range(0, META.SPAN, META.BLOCK_P):
        others = rows_at(other, first + step, META)
        factor = load_rows(per_row.other_scale, others, 0.0)
        if RESIDENT:
            left = load_tile(others, every_d, META)
            scores = tl.zeros([META.BLOCK_P, META.BLOCK_P], dtype=META.ACC)
            scores = products(left, right, scores, META)
        else:
            scores = read_products(others, rows, META)
        both = factor[:, None] * scale[None, :]
        distance = -scores
        scores *= both
        if META.OF_KEYS:
            own = load_rows(per_row.own, others, META.IGNORE_INDEX)
            plus = load_rows(per_row.plus, rows, META.IGNORE_INDEX)
            minus = load_rows(per_row.minus, rows, META.IGNORE_INDEX)
            lse, pull, push = of_anchors(statistics, others)
            positive, negative = roles(
                own[:, None], plus[None, :], minus[None, :],
                others.offs[:, None], rows.offs[None, :], META,
            )  # fmt: skip
            grad_logits = grad_scores_of(
                scores, lse[:, None], pull[:, None], push[:, None], positive, negative, META.ALL
            )
            used = pull != 0.0
        else:
            own = load_rows(per_row.own, rows, META.IGNORE_INDEX)
            plus = load_rows(per_row.plus, others, META.IGNORE_INDEX)
            minus = load_rows(per_row.minus, others, META.IGNORE_INDEX)
            lse, pull, push = of_anchors(statistics, rows)
            positive, negative = roles(
                own[None, :], plus[:, None], minus[:, None],
                rows.offs[None, :], others.offs[:, None], META,
            )  # fmt: skip
            grad_logits = grad_scores_of(
                scores, lse[None, :], pull[None, :], push[None, :], positive, negative, META.ALL
            )
            used = (plus != META.IGNORE_INDEX) | (minus != META.IGNORE_INDEX)
        radial += tl.sum(tl.where(grad_logits == 0.0, 0.0, grad_logits * scores), axis=0)
        grad_logits = tl.where(grad_logits == 0.0, 0.0, grad_logits * both)
        if DISTANCE:
            # ds/dr = (o - r) / (tau |o - r|), 0 where they are equal.
            apart = (grad_logits != 0.0) & (distance != 0.0)
            grad_logits = tl.where(apart, grad_logits / tl.where(apart, distance, 1.0), 0.0)
            for channel in range(META.D):
                gap = gaps(others, rows, channel, META)
                part = tl.sum(tl.where(apart, grad_logits * gap, 0.0), axis=0)[None, :]
                add_to_slot(slot, part, channel + tl.arange(0, 1), step, META.BLOCK_P, META.D)
            tl.debug_barrier()
        elif RESIDENT:
            # A product mixes rows: what one that takes no part holds must not reach the others.
            clean = tl.where(used[:, None], left, tl.zeros_like(left))
            whole += weighted_sum(clean, grad_logits, META)
        else:
            for start in range(0, META.D, META.BLOCK_D):
                offs_d = start + every_d
                tile = load_tile(others, offs_d, META)
                clean = tl.where(used[:, None], tile, tl.zeros_like(tile))
                part = weighted_sum(clean, grad_logits, META)
                add_to_slot(slot, part, offs_d, step, META.BLOCK_P, META.D)
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if RESIDENT:
        add_to_slot(slot, whole, every_d, 0, META.BLOCK_P, META.D)
    tl.store(radial_ptr + number + tl.arange(0, META.BLOCK_P), radial)


def _gradient(
    call: PairRolesCall, side: Side, other: Side, statistics: Tensor, of_keys: bool
) -> Tensor:
    """The gradient of one side's rows, in their memory format."""
    gradient = torch.empty_like(side.rows)
    rows, channels = side.rows.shape
    if rows == 0 or len(other.rows) == 0:
        return gradient.zero_()
    acc = accumulation_dtype(side.rows)
    # Slots take as much memory as both sides together in float32, or SLOT_BYTES where that is more.
    allowed = max(SLOT_BYTES, 4 * channels * (rows + len(other.rows)))
    span = span_of_pairs(rows, len(other.rows), allowed // (4 * channels * rows))
    width = side.rows.element_size()
    block = configuration("pair_contrast_backward", family(side.rows), width, channels, 1).block_p
    padded = block * tile_count(rows, block)
    spans = tile_count(len(other.rows), span)
    partial = side.rows.new_empty(spans, padded, channels, dtype=acc)
    radial = side.rows.new_empty(spans, padded, dtype=acc)
    pair_launch(
        pair_contrast_backward_kernel, "pair_contrast_backward", (side, other), call, span,
        (statistics, partial, radial), of_keys,
    )  # fmt: skip
    total = partial.sum(dim=0)[:rows]
    if call.similarity == "cosine":
        radial = radial.sum(dim=0)[:rows, None]
        along = radial * side.inverse_length[:, None].square() * side.rows
        # A row that takes no part may hold NaN.
        total = torch.where(radial == 0, total, total - along)
    if side.size is not None:
        total = total / side.size
    return gradient.copy_(total)


def pair_contrast_backward(
    grad_output: Tensor, call: PairRolesCall, wants: tuple[bool, bool], statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """(M17) gradients of anchors and keys from those of the losses (A,)."""
    lse, per_positive, mass = statistics
    # What comes back to an anchor that does not count may be anything.
    factor = torch.where(per_positive != 0, grad_output, 0)
    weighed = torch.stack([lse, per_positive * factor, mass * factor])
    left, right = sides_of(call)
    return (
        _gradient(call, left, right, weighed, False) if wants[0] else call.anchors.new_empty(0),
        _gradient(call, right, left, weighed, True) if wants[1] else call.keys.new_empty(0),
    )
