"""Gradients of the contrast between pairs of pixels, (M17): one launch for each side.

A program has a block of one side's rows and walks a span of the other's. The scores are taken
again; their gradient times the other side's tile is added to the block's slot, and torch adds
the slots.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.launch import (
    SLOT_BYTES,
    accumulation_dtype,
    family,
    tile_count,
)
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.pairs import (
    Side,
    gaps,
    labels_of,
    pair_launch,
    place,
    products,
    read_products,
    role_constants,
    roles,
    sides_of,
    span_of_pairs,
)
from protocontrast.kernels.scores import weighted_sum


@triton.jit
def of_anchors(statistics_ptr, offs_a, anchors):
    """Log-sum-exp, pull and push of anchors; 0 weighs what lies outside."""
    inside = offs_a < anchors
    lse = tl.load(statistics_ptr + offs_a, mask=inside, other=float("inf"))
    pull = tl.load(statistics_ptr + anchors + offs_a, mask=inside, other=0.0)
    push = tl.load(statistics_ptr + anchors + anchors + offs_a, mask=inside, other=0.0)
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
    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
    row_scale_ptr, other_scale_ptr, own_ptr, plus_ptr, minus_ptr, statistics_ptr,
    partial_ptr, radial_ptr, rows, others,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, OF_KEYS: tl.constexpr,
    DISTANCE: tl.constexpr, ALL: tl.constexpr, EXCLUDE_SELF: tl.constexpr,
    IGNORE_INDEX: tl.constexpr,
    SPAN: tl.constexpr, D: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows are the anchors or, OF_KEYS, the keys; others the other side."""
    RESIDENT: tl.constexpr = (BLOCK_D >= D) & (DISTANCE == 0)
    block, span, first = place(rows, SPAN, BLOCK_P)
    offs_r = block * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = offs_r < rows
    scale = tl.load(row_scale_ptr + offs_r, mask=inside, other=0.0)
    slot = (span * tl.cdiv(rows, BLOCK_P) + block) * BLOCK_P
    slot_ptr = partial_ptr + slot * D
    radial = tl.zeros([BLOCK_P], dtype=ACC)
    if RESIDENT:
        offs_d = tl.arange(0, BLOCK_D)
        whole = tl.zeros([BLOCK_D, BLOCK_P], dtype=ACC)
        right = load_tile(rows_ptr, stride_xd, stride_xr, offs_r, offs_d, rows, D)
    for step in range(0, SPAN, BLOCK_P):
        offs_o = first + step + tl.arange(0, BLOCK_P)
        there = offs_o < others
        factor = tl.load(other_scale_ptr + offs_o, mask=there, other=0.0)
        if RESIDENT:
            left = load_tile(others_ptr, stride_xe, stride_xo, offs_o, offs_d, others, D)
            scores = tl.zeros([BLOCK_P, BLOCK_P], dtype=ACC)
            scores = products(left, right, scores, OPERANDS, PRECISION, ACC)
        else:
            scores = read_products(
                rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
                offs_r, offs_o, rows, others,
                DISTANCE, OPERANDS, PRECISION, ACC, D, BLOCK_P, BLOCK_D,
            )  # fmt: skip
        both = factor[:, None] * scale[None, :]
        distance = -scores
        scores *= both
        if OF_KEYS:
            own = tl.load(own_ptr + offs_o, mask=there, other=IGNORE_INDEX)
            plus = tl.load(plus_ptr + offs_r, mask=inside, other=IGNORE_INDEX)
            minus = tl.load(minus_ptr + offs_r, mask=inside, other=IGNORE_INDEX)
            lse, pull, push = of_anchors(statistics_ptr, offs_o, others)
            positive, negative = roles(
                own[:, None], plus[None, :], minus[None, :], offs_o[:, None], offs_r[None, :],
                ALL, EXCLUDE_SELF, IGNORE_INDEX,
            )  # fmt: skip
            grad_logits = grad_scores_of(
                scores, lse[:, None], pull[:, None], push[:, None], positive, negative, ALL
            )
            used = pull != 0.0
        else:
            own = tl.load(own_ptr + offs_r, mask=inside, other=IGNORE_INDEX)
            plus = tl.load(plus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
            minus = tl.load(minus_ptr + offs_o, mask=there, other=IGNORE_INDEX)
            lse, pull, push = of_anchors(statistics_ptr, offs_r, rows)
            positive, negative = roles(
                own[None, :], plus[:, None], minus[:, None], offs_r[None, :], offs_o[:, None],
                ALL, EXCLUDE_SELF, IGNORE_INDEX,
            )  # fmt: skip
            grad_logits = grad_scores_of(
                scores, lse[None, :], pull[None, :], push[None, :], positive, negative, ALL
            )
            used = (plus != IGNORE_INDEX) | (minus != IGNORE_INDEX)
        radial += tl.sum(tl.where(grad_logits == 0.0, 0.0, grad_logits * scores), axis=0)
        grad_logits = tl.where(grad_logits == 0.0, 0.0, grad_logits * both)
        if DISTANCE:
            # ds/dr = (o - r) / (tau |o - r|), 0 where they are equal.
            apart = (grad_logits != 0.0) & (distance != 0.0)
            grad_logits = tl.where(apart, grad_logits / tl.where(apart, distance, 1.0), 0.0)
            for channel in range(D):
                gap = gaps(
                    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
                    offs_r, offs_o, rows, others, channel, ACC,
                )  # fmt: skip
                part = tl.sum(tl.where(apart, grad_logits * gap, 0.0), axis=0)
                add_to_slot(slot_ptr, part[None, :], channel + tl.arange(0, 1), step, BLOCK_P, D)
            tl.debug_barrier()
        elif RESIDENT:
            # A product mixes rows: what one that takes no part holds must not reach the others.
            clean = tl.where(used[:, None], left, tl.zeros_like(left))
            whole += weighted_sum(clean, grad_logits, OPERANDS, PRECISION, ACC)
        else:
            for start in range(0, D, BLOCK_D):
                offs_d = start + tl.arange(0, BLOCK_D)
                tile = load_tile(others_ptr, stride_xe, stride_xo, offs_o, offs_d, others, D)
                clean = tl.where(used[:, None], tile, tl.zeros_like(tile))
                part = weighted_sum(clean, grad_logits, OPERANDS, PRECISION, ACC)
                add_to_slot(slot_ptr, part, offs_d, step, BLOCK_P, D)
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if RESIDENT:
        add_to_slot(slot_ptr, whole, tl.arange(0, BLOCK_D), 0, BLOCK_P, D)
    tl.store(radial_ptr + slot + tl.arange(0, BLOCK_P), radial)


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
        pair_contrast_backward_kernel,
        "pair_contrast_backward",
        side,
        other,
        labels_of(call),
        span,
        {"statistics_ptr": statistics, "partial_ptr": partial, "radial_ptr": radial},
        {**role_constants(call), "OF_KEYS": of_keys},
    )
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
