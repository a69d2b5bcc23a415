"""Contrast of pixels and class distributions, (D3) for `distribution_contrast`, and its gradients.

One read of the features each way, every tile of which is multiplied with the means and, squared,
with the variances. `prepare` of prototypes.py has written the means as a matrix and, whole, the
variances as another. With q_i = f_i / |f_i| (cosine), or f_i itself (dot), a logit is the sum of

    score_ic = scale_c matrix_c . q_i,    bonus_ic = breadth spread_c . q_i^2.

The gradient of means and variances is left in partial sums, one per span of pixels; the slope of
the softmax alone meets the squares.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import DistributionCall, accumulation_dtype
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.contrast import (
    Statistics,
    empty_statistics,
    normaliser_of,
    pull_of,
    store_statistics,
)
from protocontrast.kernels.launch import Launch, arithmetic, plan, run, span_of, tile_count
from protocontrast.kernels.lengths import AT_ONCE, lengths_of, out_of_range, row_of
from protocontrast.kernels.meta import Meta, constants
from protocontrast.kernels.operands import add_product
from protocontrast.kernels.prototypes import Prepared, Prototypes, finish, prepare
from protocontrast.kernels.scores import (
    add_scores,
    classes_of,
    logits_of,
    to_features,
    weighted_sum,
)
from protocontrast.kernels.slopes import returned, upstream_of
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import (
    inside,
    load_tile,
    map_of,
    own_tile,
    span_at,
    store_tile,
    tile_at,
)


class Both(NamedTuple):
    """Means and variances made ready; of the variances' table the first row, breadth, is read."""

    means: Prepared
    spreads: Prepared


@triton.jit
def add_parts(block, total, squared, bonus, both, offs_d, META: tl.constexpr):
    """A block of channels added to products with means and spreads, and to squared lengths."""
    total, squared = add_scores(block, total, squared, both.means.matrix, offs_d, META)
    offs_c = tl.arange(0, META.BLOCK_C)
    columns = both.spreads.matrix + offs_d[:, None] + offs_c[None, :] * META.ROW
    spread = tl.load(columns, mask=offs_d[:, None] < META.ROW, other=0.0)  # [BLOCK_D, BLOCK_C]
    wide = block.to(META.ACC)
    # 16 bits do not hold the square of a 16-bit number.
    bonus = add_product(wide * wide, spread, bonus, META.SPREAD_OPERANDS, META)
    return total, squared, bonus


@triton.jit
def read_parts(tile, both, META: tl.constexpr):
    """Products and squared lengths of a tile of pixels over all channels."""
    total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    bonus = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        offs_d = start + tl.arange(0, META.BLOCK_D)
        block = load_tile(tile, offs_d, META)
        total, squared, bonus = add_parts(block, total, squared, bonus, both, offs_d, META)
    return total, squared, bonus


@triton.jit
def breadth_of(both, META: tl.constexpr):
    """What a bonus is multiplied by, [BLOCK_C]."""
    return tl.load(both.spreads.table + tl.arange(0, META.BLOCK_C))


@triton.jit
def parts_of(parts, scale, breadth, tile, both, META: tl.constexpr):
    """Scores and bonus [BLOCK_P, BLOCK_C] of the products, and the inverse lengths [BLOCK_P, 1]."""
    total, squared, bonus = parts
    length = lengths_of(total, squared, tile, both.means.matrix, META)
    scores, inverse = logits_of(total, length, scale, META)
    bonus *= inverse * inverse
    if META.SIMILARITY == "cosine":
        bonus = unit_bonus(squared, bonus, inverse, tile, both.spreads.matrix, META)
    return scores, bonus * breadth[None, :], inverse


@triton.jit
def unit_bonus(squared, bonus, inverse, tile, spread, META: tl.constexpr):
    """spread_c . q_i^2 of a tile, read again where squares of a pixel left the dtype's range."""
    STEP: tl.constexpr = AT_ONCE // META.BLOCK_P
    offs_c = tl.arange(0, META.BLOCK_C)
    doubtful = out_of_range(squared, META.ACC) & inside(tile)
    stop = META.D if tl.max(doubtful[:, None].to(tl.int32)) > 0 else 0
    again = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        unit = load_tile(tile, offs_d, META).to(META.ACC) * inverse
        for c in range(META.C):
            part = tl.sum(unit * unit * row_of(spread, c, offs_d, META), axis=1)
            again += tl.where(offs_c[None, :] == c, part[:, None], 0.0)
    return tl.where(doubtful[:, None], again, bonus)


@triton.jit
def along_spread(direction, grad_logits, spread, offs_d, META: tl.constexpr):
    """2 q_id sum_c slope_ic spread_cd, [BLOCK_P, BLOCK_D], of directions in ACC."""
    rows = spread + tl.arange(0, META.BLOCK_C)[:, None] * META.ROW + offs_d[None, :]
    block = tl.load(rows, mask=offs_d[None, :] < META.ROW, other=0.0)  # [BLOCK_C, BLOCK_D]
    return 2 * direction * add_product(grad_logits, block, None, META.SPREAD_OPERANDS, META)


@triton.jit
def squares_to_rows(direction, grad_logits, META: tl.constexpr):
    """sum_i dL/dz_ic q_i^2, [BLOCK_D, BLOCK_C], of directions in ACC."""
    across = tl.trans(direction)
    return add_product(across * across, grad_logits, None, META.SPREAD_OPERANDS, META)


def tables_of(call: DistributionCall) -> tuple[Prototypes, Prototypes]:
    """Means, and variances over twice the square of the temperature."""
    divisor = 2 * call.temperature * call.temperature
    return (
        Prototypes(call.prototypes, call.present, call.class_weight, "dot", call.temperature),
        Prototypes(call.variance, call.present, None, "dot", divisor),
    )


def prepare_both(row: str, call: DistributionCall) -> tuple[Both, Meta, dict[str, Any]]:
    """Means and variances made ready, constants and launch options of a kernel of both."""
    features = call.features
    of_means, of_variances = tables_of(call)
    both = Both(prepare(features, of_means), prepare(features, of_variances, whole=True))
    meta, how = plan(
        row, features, len(call.prototypes),
        SIMILARITY="cosine" if call.normalize else "dot",
        SPREAD_OPERANDS=arithmetic(features, torch.bfloat16)[1],
        IGNORE_INDEX=call.ignore_index,
    )  # fmt: skip
    return both, meta, how


@triton.jit
def distribution_contrast_kernel(features, targets, both, statistics, meta: tl.constexpr):
    """One program per tile of BLOCK_P pixels of one image."""
    META: tl.constexpr = constants(meta)
    tile = own_tile(features, META)
    parts = read_parts(tile, both, META)
    classes, breadth = classes_of(both.means.table, META), breadth_of(both, META)
    scores, bonus, _ = parts_of(parts, classes.scale, breadth, tile, both, META)
    lse = normaliser_of(scores + bonus + classes.offset[None, :])
    # The positive has no bonus: it is pulled to the mean.
    pull, weight = pull_of(targets, tile, both.means.table, scores, META)
    store_statistics(statistics, tile, pull, weight, lse)


def distribution_contrast(call: DistributionCall) -> Statistics:
    """Loss, weight and log-sum-exp of every pixel."""
    features, statistics = call.features, empty_statistics(call.features)
    if statistics.loss.numel():
        both, meta, how = prepare_both("distribution_contrast", call)
        arguments = map_of(features), targets_of(call), both, statistics
        programs = len(features) * tile_count(features.shape[2], meta.BLOCK_P)
        run(Launch(distribution_contrast_kernel, programs, arguments, meta, how), features)
    return statistics


@triton.jit
def distribution_contrast_backward_kernel(
    features, targets, both, upstream, gradient, sums, meta: tl.constexpr
):
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P.

    `sums` are slots for the means' gradient and for the variances', each None where not wanted.
    """
    META: tl.constexpr = constants(meta)
    RESIDENT: tl.constexpr = META.BLOCK_D >= META.D
    of_means, of_squares = sums
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    every_d = tl.arange(0, META.BLOCK_D)
    classes, breadth = classes_of(both.means.table, META), breadth_of(both, META)
    slot = tl.program_id(0).to(tl.int64) * META.C * META.D
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        mass, weight = masses(targets, tile, classes.share, META)
        if RESIDENT:
            block = load_tile(tile, every_d, META)
            total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
            parts = add_parts(block, total, squared, total, both, every_d, META)
        else:
            parts = read_parts(tile, both, META)
        scores, bonus, inverse = parts_of(parts, classes.scale, breadth, tile, both, META)
        grad_output, lse = returned(upstream, tile, META.ACC)
        # An ignored pixel's features and what comes back to it may be anything, and so may the
        # features of a pixel to which nothing comes back: neither has a gradient.
        kept = (weight != 0.0) & (grad_output != 0.0)
        softmax = tl.exp(scores + bonus + classes.offset[None, :] - lse[:, None])
        push = tl.where(kept[:, None], softmax * weight[:, None] * grad_output[:, None], 0.0)
        grad_logits = tl.where(kept[:, None], push - mass * grad_output[:, None], 0.0)
        radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        if META.SIMILARITY == "cosine":
            along = grad_logits * scores + 2 * push * bonus
            radial = tl.sum(along * inverse, axis=1)
            grad_logits = tl.where(kept[:, None], grad_logits * inverse, 0.0)
        # What an ignored pixel holds may have no length.
        over = tl.where(kept[:, None], inverse, 0.0)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + every_d
            if not RESIDENT:
                block = load_tile(tile, offs_d, META)
            if gradient is not None:
                slope = grad_logits * classes.scale[None, :]
                part = to_features(block, slope, radial, inverse, both.means.matrix, offs_d, META)
                direction, slope = block.to(META.ACC) * inverse, push * breadth[None, :] * inverse
                part += along_spread(direction, slope, both.spreads.matrix, offs_d, META)
                store_tile(gradient, tile, offs_d, tl.where(kept[:, None], part, 0.0), META.D)
            # A product mixes pixels: what an ignored one holds must not reach it.
            clean = tl.where(kept[:, None], block, tl.zeros_like(block))
            if of_means is not None:
                rows = weighted_sum(clean, grad_logits, META)
                add_to_slot(of_means + slot, rows, offs_d, step, META.C, META.D)
            if of_squares is not None:
                rows = squares_to_rows(clean.to(META.ACC) * over, push, META)
                add_to_slot(of_squares + slot, rows, offs_d, step, META.C, META.D)
        if of_means is not None or of_squares is not None:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()


def distribution_contrast_backward(
    grad_output: Tensor, call: DistributionCall, wants: tuple[bool, bool, bool], lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(D3) gradients of features, prototypes and variance from those of the losses (B, P)."""
    features, prototypes, variance = call.features, call.prototypes, call.variance
    images, channels, pixels = features.shape
    classes = len(prototypes)
    gradient = torch.empty_like(features) if wants[0] else features.new_empty(0)
    if images * pixels == 0:
        return (
            gradient,
            torch.zeros_like(prototypes) if wants[1] else prototypes.new_empty(0),
            torch.zeros_like(variance) if wants[2] else variance.new_empty(0),
        )
    tables = wants[1] + wants[2]
    row = "distribution_contrast_backward_both" if tables else "distribution_contrast_backward"
    both, meta, how = prepare_both(row, call)
    span = meta.BLOCK_P
    if tables:
        span = span_of(images, channels, pixels, features.element_size(), tables * classes)
    slots = images * tile_count(pixels, span)

    def partial(wanted: bool) -> Tensor | None:
        shape, acc = (slots, classes, channels), accumulation_dtype(features)
        return features.new_empty(shape, dtype=acc) if wanted else None

    sums = partial(wants[1]), partial(wants[2])
    arguments = (
        map_of(features), targets_of(call), both, upstream_of(grad_output, lse),
        map_of(gradient if wants[0] else None), sums,
    )  # fmt: skip
    meta = meta._replace(SPAN=span)
    run(Launch(distribution_contrast_backward_kernel, slots, arguments, meta, how), features)

    def finished(total: Tensor | None, given: Prototypes) -> Tensor:
        if total is None:
            return given.rows.new_empty(0)
        return finish(features, total.sum(dim=0), given)

    means, variances = tables_of(call)
    return gradient, finished(sums[0], means), finished(sums[1], variances)
