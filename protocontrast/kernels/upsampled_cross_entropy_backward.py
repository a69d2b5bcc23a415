"""The gradient of the cross-entropy of bilinearly upsampled logits: (M16).

The first kernel computes each pixel once, where the forward does, and adds what an interval's rows
and a run of columns send to the cells that they read. The second adds these sums, cell by cell. So
there are no atomics, and what is between them does not grow with the size of the labels.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import UpsampledCall, accumulation_dtype
from protocontrast.kernels.launch import Launch, run, tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.operands import narrowed
from protocontrast.kernels.upsampled_cross_entropy import (
    HELD,
    Kept,
    Slopes,
    constants_of,
    how_of,
    members,
    multiplied,
    no_sums,
    pixels_at,
    place_of,
    present_weights,
    scores_of,
    slopes_of,
    summed,
    sweep,
)
from protocontrast.kernels.upsampling import (
    block_at,
    first_in,
    grid_of,
    load_by_columns,
    load_pixels,
    most_in,
    power_of_two_below,
    reads,
    rows_around,
)

LONGEST = 32
"""Columns of a run at most: they are added within a warp."""
FEWER = 16
"""Classes that a thread meets where it does not hold all."""
CELLS, CLASSES = 64, 8
"""Gradients that a program of the second kernel adds up."""


class Runs(NamedTuple):
    """Sums (B, C, h + 1, 2, SENDS, count), contiguous: of what the rows of an interval send to the
    cells above and below them, and runs of columns to that before their first column and SENDS - 1
    behind it. The first of `count` runs begins at a column that may be negative."""

    pointer: Any
    first: Any
    count: Any


class Cut(NamedTuple):
    """How columns are cut into runs: their length, the first column, and the cells a run meets."""

    length: int
    first: int
    sends: int


@triton.jit
def sends(interval, share):
    """The shares of the cells before positions and behind them; what is not there has none."""
    ahead = interval == 0
    return tl.where(ahead, 0.0, 1.0 - share), tl.where(ahead, 1.0, share)


@triton.jit
def held(scores, pixels, back, share, first_class, META: tl.constexpr):
    """The softmax of pixels times what comes back to it, and slopes, where all classes are held."""
    sums, exponentials = summed(no_sums(META), scores, pixels, share, first_class, META)
    slopes, _ = slopes_of(pixels, sums, META)
    return exponentials * (slopes.whole * back / sums.total)[None], slopes


@triton.jit
def given_again(kept, scores, place, back, inside, META: tl.constexpr):
    """The same of some classes, where the forward kernel has met them all."""
    lse = tl.load(kept.lse + place, mask=inside, other=0.0)
    whole = tl.load(kept.whole + place, mask=inside, other=0.0)
    own, even = whole, whole
    if META.SMOOTHING != 0.0:
        own = tl.load(kept.own + place, mask=inside, other=0.0)
        even = tl.load(kept.even + place, mask=inside, other=0.0)
    return tl.exp2(scores - lse[None]) * (whole * back)[None], Slopes(whole, own, even)


@triton.jit
def parted(slope, share):
    """A part of slopes; what has no share may be NaN."""
    return tl.where(share == 0.0, 0.0, slope * share)


@triton.jit
def upsampled_cross_entropy_backward_kernel(
    logits, labels, share, grad_output, kept, runs, meta: tl.constexpr
):
    """One program per block and BLOCK_C classes."""
    META: tl.constexpr = constants(meta)
    parts: tl.constexpr = (META.C + META.BLOCK_C - 1) // META.BLOCK_C
    first_class = (tl.program_id(0) % parts) * META.BLOCK_C
    block = block_at(tl.program_id(0) // parts, logits, labels, runs.first, META)
    both = rows_around(logits, block, first_class, META)
    upward = tl.zeros([META.BLOCK_C, META.BLOCK_W], dtype=META.ACC)
    downward = tl.zeros([META.BLOCK_C, META.BLOCK_W], dtype=META.ACC)
    for first in range(block.row, block.end, META.BLOCK_R):
        pixels = pixels_at(first, logits, labels, share, block, META)
        scores = scores_of(pixels, both)
        back = load_pixels(grad_output, block, pixels.rows, pixels.inside).to(META.ACC)
        if kept is None:
            slope, slopes = held(scores, pixels, back, share, first_class, META)
        else:
            place = place_of(block, pixels, labels)
            slope, slopes = given_again(kept, scores, place, back, pixels.inside, META)
        member = members(pixels, first_class, META)
        slope -= tl.where(member, (slopes.own * back)[None], 0.0)
        if META.SMOOTHING != 0.0:
            weights = present_weights(scores, share, first_class, META)
            slope -= weights * (slopes.even * back)[None]
        # Ignored pixels may read NaN, and so may those to which nothing comes back.
        slope = tl.where(((slopes.whole == 0.0) | (back == 0.0))[None], 0.0, slope)
        up, down = sends(block.interval, pixels.share)
        slope, up, down = tl.sum(slope, axis=1), up[None, :], down[None, :]
        if pixels.careful:
            upward += parted(slope, up)
            downward += parted(slope, down)
        else:
            upward = multiplied(slope, up, upward)
            downward = multiplied(slope, down, downward)
    offs_c = first_class + tl.arange(0, META.BLOCK_C)
    offs_w = tl.arange(0, META.BLOCK_W)
    begin = block.columns - offs_w % META.RUN
    start = reads(tl.maximum(begin, 0), logits.width, labels.width, META.ALIGNED).interval
    before, behind = sends(block.across.interval, block.share)
    behind_start = block.across.interval - start
    number = tl.arange(0, META.BLOCK_W // META.RUN) + block.strip * (META.BLOCK_W // META.RUN)
    slot = (block.image * META.C + offs_c.to(tl.int64)) * (logits.height + 1) + block.interval
    mask = (offs_c < META.C)[:, None] & (number < runs.count)[None, :]
    for send in tl.static_range(META.SENDS):
        part = tl.where(behind_start == send, before, 0.0)
        part += tl.where(behind_start + 1 == send, behind, 0.0)
        part = tl.where(block.inside, part, 0.0)[None, :]
        for side in tl.static_range(2):
            total = parted(downward if side else upward, part)
            total = tl.reshape(total, [META.BLOCK_C, META.BLOCK_W // META.RUN, META.RUN])
            place = ((slot * 2 + side) * META.SENDS + send) * runs.count
            where = runs.pointer + place[:, None] + number[None, :]
            tl.store(where, tl.sum(total, axis=2), mask=mask)


@triton.jit
def upsampled_cross_entropy_cells_kernel(gradient, labels, runs, most, meta: tl.constexpr):
    """One program per row of cells, BLOCK_W of them and BLOCK_C classes: the sum of what at most
    so many runs send to each."""
    META: tl.constexpr = constants(meta)
    parts: tl.constexpr = (META.C + META.BLOCK_C - 1) // META.BLOCK_C
    strips = tl.cdiv(gradient.width, META.BLOCK_W)
    number = tl.program_id(0) // parts
    offs_c = (tl.program_id(0) % parts) * META.BLOCK_C + tl.arange(0, META.BLOCK_C)
    columns = (number % strips) * META.BLOCK_W + tl.arange(0, META.BLOCK_W)
    row = number // strips % gradient.height
    image = (number // strips // gradient.height).to(tl.int64)
    mask = (offs_c < META.C)[:, None] & (columns < gradient.width)[None, :]
    first = first_in(columns, gradient.width, labels.width, META.ALIGNED)
    last = first_in(columns + 2, gradient.width, labels.width, META.ALIGNED) - 1
    near = (first - runs.first) // META.RUN
    classes = image * META.C + offs_c.to(tl.int64)
    below = (classes * (gradient.height + 1) + row + 1) * 2
    above = (classes * (gradient.height + 1) + row) * 2 + 1
    total = tl.zeros([META.BLOCK_C, META.BLOCK_W], dtype=META.ACC)
    for step in range(most):
        column = runs.first + (near + step) * META.RUN
        start = reads(tl.maximum(column, 0), gradient.width, labels.width, META.ALIGNED).interval
        send = columns + 1 - start
        sent = (column <= last) & (send >= 0) & (send < META.SENDS)
        place = send.to(tl.int64) * runs.count + near + step
        for side in tl.static_range(2):
            slot = (below if side == 0 else above) * META.SENDS * runs.count
            total += load_by_columns(runs.pointer, slot, place, mask & sent[None, :])
    where = gradient.pointer + image * gradient.stride_b + row.to(tl.int64) * gradient.stride_h
    where += columns[None, :].to(tl.int64) * gradient.stride_w
    where += offs_c[:, None].to(tl.int64) * gradient.stride_c
    tl.store(where, narrowed(total, gradient.pointer.dtype.element_ty), mask=mask)


def cut_of(inputs: int, outputs: int, align_corners: bool) -> Cut:
    """Runs of a power of two, no longer than cells are apart."""
    if align_corners:
        apart = (outputs - 1) // (inputs - 1) if inputs > 1 else outputs
    else:
        apart = outputs // inputs
    length = min(LONGEST, power_of_two_below(apart))
    if length == 1:
        return Cut(1, 0, 2)
    if not align_corners and outputs == length * inputs:
        # Every run is an interval.
        return Cut(length, -length // 2, 2)
    return Cut(length, 0, 3)


def most_runs(inputs: int, outputs: int, align_corners: bool, length: int) -> int:
    """Runs in two neighbouring intervals."""
    return tile_count(2 * most_in(inputs, outputs, align_corners), length) + 1


def _kept(call: UpsampledCall) -> Kept | None:
    """Of more classes than a thread holds, log-sum-exps have to be known beforehand."""
    if call.logits.shape[1] <= HELD:
        return None
    shape = (4 if call.label_smoothing else 2, *call.labels.shape)
    found = call.logits.new_empty(shape, dtype=accumulation_dtype(call.logits)).unbind()
    kept = Kept(*found, *found[: 4 - len(found)])
    sweep(call, None, None, kept)
    return kept


def upsampled_cross_entropy_backward(
    grad_output: Tensor, call: UpsampledCall, wants: tuple[bool]
) -> Tensor:
    """The gradient of the logits from that of the losses."""
    logits, labels = call.logits, call.labels
    gradient = torch.empty_like(logits)
    if labels.numel() == 0:
        return gradient
    images, classes, height, width = logits.shape
    across = width, labels.shape[2], call.align_corners
    cut = cut_of(*across)
    count = tile_count(labels.shape[2] - cut.first, cut.length)
    shape = images, classes, height + 1, 2, cut.sends, count
    sums = logits.new_empty(shape, dtype=accumulation_dtype(logits))
    runs, how = Runs(sums, cut.first, count), how_of(logits)
    coarse, fine = grid_of(logits), grid_of(labels)
    meta = constants_of(call, FEWER, 1)._replace(RUN=cut.length, SENDS=cut.sends)
    arguments = coarse, fine, call.class_weight, grid_of(grad_output), _kept(call), runs
    strips = tile_count(labels.shape[2] - cut.first, meta.BLOCK_W)
    programs = images * (height + 1) * strips * tile_count(classes, meta.BLOCK_C)
    kernel = upsampled_cross_entropy_backward_kernel
    run(Launch(kernel, programs, arguments, meta, how), logits)
    meta = meta._replace(BLOCK_W=CELLS, BLOCK_C=CLASSES)
    summing = grid_of(gradient), fine, runs, most_runs(*across, cut.length)
    programs = images * height * tile_count(width, CELLS) * tile_count(classes, CLASSES)
    run(Launch(upsampled_cross_entropy_cells_kernel, programs, summing, meta, how), logits)
    return gradient
