"""Contrast of pixels and class distributions, (D3) for `distribution_contrast`, and its gradients.

One read of the features each way, every tile of which is multiplied with the means and, squared,
with the variances. The gradient of means and variances is left in partial sums, one per span of
pixels; the slope of the softmax alone meets the squares.
"""

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
from protocontrast.kernels.launch import Launch, run, span_of, tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes, finish
from protocontrast.kernels.scores import classes_of, to_features, weighted_sum
from protocontrast.kernels.slopes import returned, upstream_of
from protocontrast.kernels.spreads import (
    add_parts,
    along_spread,
    breadth_of,
    parts_of,
    prepare_both,
    read_parts,
    squares_to_rows,
    tables_of,
)
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import load_tile, map_of, own_tile, span_at, store_tile, tile_at


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
