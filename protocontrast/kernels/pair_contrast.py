"""Contrast between pairs of pixels: (M17) for `pair_contrast`, forward.

A program has a block of anchors and a span of keys: first for the log-sum-exp of the anchors'
negatives, then, in a second launch, for their positives against it. What spans leave is added in
order. Its gradients are in pair_contrast_backward.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall
from protocontrast.kernels.launch import accumulation_dtype, tile_count
from protocontrast.kernels.pairs import (
    labels_of,
    pair_launch,
    place,
    read_products,
    role_constants,
    roles,
    sides_of,
    span_of_pairs,
)


@triton.jit
def pair_normaliser_kernel(
    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
    row_scale_ptr, other_scale_ptr, own_ptr, plus_ptr, minus_ptr, partial_ptr, rows, others,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    DISTANCE: tl.constexpr, ALL: tl.constexpr, EXCLUDE_SELF: tl.constexpr,
    IGNORE_INDEX: tl.constexpr,
    SPAN: tl.constexpr, D: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The log-sum-exp of a block of anchors' negatives within a span of keys, -inf for none."""
    block, span, first = place(rows, SPAN, BLOCK_P)
    offs_r = block * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = offs_r < rows
    own = tl.load(own_ptr + offs_r, mask=inside, other=IGNORE_INDEX)
    scale = tl.load(row_scale_ptr + offs_r, mask=inside, other=0.0)
    peak = tl.full([BLOCK_P], float("-inf"), dtype=ACC)
    total = tl.zeros([BLOCK_P], dtype=ACC)
    for step in range(0, SPAN, BLOCK_P):
        offs_o = first + step + tl.arange(0, BLOCK_P)
        there = offs_o < others
        plus = tl.load(plus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
        minus = tl.load(minus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
        factor = tl.load(other_scale_ptr + offs_o, mask=there, other=0.0)
        scores = read_products(
            rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
            offs_r, offs_o, rows, others, DISTANCE, OPERANDS, PRECISION, ACC, D, BLOCK_P, BLOCK_D,
        )  # fmt: skip
        scores *= factor[:, None] * scale[None, :]
        _, negative = roles(
            own[None, :], plus[:, None], minus[:, None], offs_r[None, :], offs_o[:, None],
            ALL, EXCLUDE_SELF, IGNORE_INDEX,
        )  # fmt: skip
        scores = tl.where(negative, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=0))
        # Where there was no negative yet, -inf less -inf would be NaN.
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - safe) + tl.sum(tl.exp(scores - safe[None, :]), axis=0)
        peak = higher
    lse = tl.where(total == 0.0, float("-inf"), peak + tl.log(total))
    tl.store(partial_ptr + span * rows + offs_r, lse, mask=inside)


@triton.jit
def pair_contrast_kernel(
    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
    row_scale_ptr, other_scale_ptr, own_ptr, plus_ptr, minus_ptr, lse_ptr,
    partial_ptr, rows, others,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    DISTANCE: tl.constexpr, ALL: tl.constexpr, EXCLUDE_SELF: tl.constexpr,
    IGNORE_INDEX: tl.constexpr,
    SPAN: tl.constexpr, D: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sums over a block of anchors' positives within a span of keys: loss, slope and count."""
    block, span, first = place(rows, SPAN, BLOCK_P)
    offs_r = block * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = offs_r < rows
    own = tl.load(own_ptr + offs_r, mask=inside, other=IGNORE_INDEX)
    scale = tl.load(row_scale_ptr + offs_r, mask=inside, other=0.0)
    lse = tl.load(lse_ptr + offs_r, mask=inside, other=0.0)
    loss = tl.zeros([BLOCK_P], dtype=ACC)
    slope = tl.zeros([BLOCK_P], dtype=ACC)
    count = tl.zeros([BLOCK_P], dtype=ACC)
    for step in range(0, SPAN, BLOCK_P):
        offs_o = first + step + tl.arange(0, BLOCK_P)
        there = offs_o < others
        plus = tl.load(plus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
        minus = tl.load(minus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
        factor = tl.load(other_scale_ptr + offs_o, mask=there, other=0.0)
        scores = read_products(
            rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
            offs_r, offs_o, rows, others, DISTANCE, OPERANDS, PRECISION, ACC, D, BLOCK_P, BLOCK_D,
        )  # fmt: skip
        scores *= factor[:, None] * scale[None, :]
        positive, _ = roles(
            own[None, :], plus[:, None], minus[:, None], offs_r[None, :], offs_o[:, None],
            ALL, EXCLUDE_SELF, IGNORE_INDEX,
        )  # fmt: skip
        gap = lse[None, :] - scores
        if not ALL:
            # log(1 + e^gap), and its slope; e^-|gap| is at most 1.
            small = tl.exp(-tl.abs(gap))
            share = tl.where(gap > 0.0, 1.0, small) / (1.0 + small)
            slope += tl.sum(tl.where(positive, share, 0.0), axis=0)
            gap = tl.where(gap > 0.0, gap, 0.0) + tl.log(1.0 + small)
        loss += tl.sum(tl.where(positive, gap, 0.0), axis=0)
        count += tl.sum(positive.to(ACC), axis=0)
    into = partial_ptr + span * 3 * rows + offs_r
    tl.store(into, loss, mask=inside)
    tl.store(into + rows, slope, mask=inside)
    tl.store(into + rows + rows, count, mask=inside)


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
    shared = "pair_contrast", *sides_of(call), labels_of(call), span
    constants = role_constants(call)
    logs = anchors.new_empty(spans, count, dtype=dtype)
    pair_launch(pair_normaliser_kernel, *shared, {"partial_ptr": logs}, constants)
    lse = logs.logsumexp(dim=0)
    sums = anchors.new_empty(spans, 3, count, dtype=dtype)
    arguments = {"lse_ptr": lse, "partial_ptr": sums}
    pair_launch(pair_contrast_kernel, *shared, arguments, constants)
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
