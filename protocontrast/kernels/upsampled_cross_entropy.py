"""Cross-entropy of bilinearly upsampled logits: (M16).

One program per interval of rows and strip of columns, one column a thread: it holds the two rows of
cells that all its pixels read, and for each of these every class, or a few at a time.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import UpsampledCall, accumulation_dtype
from protocontrast.kernels.configs import power_of_two
from protocontrast.kernels.launch import Launch, family, options, run, tile_count
from protocontrast.kernels.meta import Meta, constants
from protocontrast.kernels.upsampling import (
    LOG2E,
    blended,
    block_at,
    grid_of,
    load_pixels,
    most_in,
    power_of_two_below,
    rows_around,
    share_behind,
)

COLUMNS = 64
"""Output columns of a program, one a thread, so that no class is another thread's."""
HELD = 32
"""Classes that a thread holds; of more it meets `FEWER` at a time, in `ROWS` rows at once."""
FEWER, ROWS = 8, 4


class Pixels(NamedTuple):
    """Pixels [BLOCK_R, BLOCK_W]: their rows [BLOCK_R], the shares of the cells below and whether
    one of these is 0, so that what is not finite below must be kept away; which pixels there are,
    their class, -1 where it is none or ignored, and its weight, then NaN or 0."""

    rows: Any
    share: Any
    careful: Any
    inside: Any
    label: Any
    weight: Any


class Sums(NamedTuple):
    """Over classes, of pixels [BLOCK_R, BLOCK_W]: the peak of the logits, the same or 0 where it is
    -inf, the sum of exponentials under it, the own logit; then what smoothing alone reads: how many
    logits are not -inf, the weights of their classes, and the logits times these."""

    peak: Any
    level: Any
    total: Any
    own: Any
    count: Any
    mass: Any
    spread: Any


class Slopes(NamedTuple):
    """What the log-sum-exp counts in the loss of pixels [BLOCK_R, BLOCK_W], the own logit, and
    every logit times its class's weight."""

    whole: Any
    own: Any
    even: Any


class Kept(NamedTuple):
    """Of all pixels (B, H, W): log-sum-exps in units of log(2) and, with smoothing, each slope;
    else one stands for all."""

    lse: Any
    whole: Any
    own: Any
    even: Any


@triton.jit
def pixels_at(first, logits, labels, share, block, META: tl.constexpr):
    """The block's pixels from a row on."""
    rows = first + tl.arange(0, META.BLOCK_R)
    inside = (rows < block.end)[:, None] & block.inside[None, :]
    label = load_pixels(labels, block, rows, inside).to(tl.int64)
    used = inside & (label != META.IGNORE_INDEX)
    known = used & (label >= 0) & (label < META.C)
    label = tl.where(known, label, -1).to(tl.int32)
    if share is not None:
        weight = tl.load(share + label, mask=known, other=0.0).to(META.ACC)
    else:
        weight = used.to(META.ACC)
    weight = tl.where(used & (label < 0), float("nan"), weight)
    below = share_behind(block.down, rows - block.row, logits.height, META)
    return Pixels(rows, below, tl.min(below, axis=0) == 0.0, inside, label, weight)


@triton.jit
def multiplied(values, part, more):
    """values part + more, by instructions that take both steps at once."""
    values, part = tl.broadcast(values, part)
    _, more = tl.broadcast(values, more)
    return tl.fma(values, part, more)


@triton.jit
def scores_of(pixels, both):
    """Logits [BLOCK_C, BLOCK_R, BLOCK_W] of pixels."""
    above, below = both[0][:, None, :], both[1][:, None, :]
    share = pixels.share[None, :, None]
    if pixels.careful:
        scores = blended(above, below, share)
    else:
        scores = multiplied(below, share, above * (1.0 - share))
    return scores


@triton.jit
def members(pixels, first_class, META: tl.constexpr):
    """Which class [BLOCK_C, BLOCK_R, BLOCK_W] is the pixel's own."""
    offs_c = tl.arange(0, META.BLOCK_C)[:, None, None]
    member = (pixels.label - first_class)[None] == offs_c
    # Without effect, but the compiler sees that padding takes no instruction.
    return member & (offs_c < META.C) if META.BLOCK_C >= META.C else member


@triton.jit
def present_weights(scores, share, first_class, META: tl.constexpr):
    """Weights of classes [BLOCK_C, BLOCK_R, BLOCK_W], 0 where a logit is -inf."""
    there = scores != float("-inf")
    if share is not None:
        classes = first_class + tl.arange(0, META.BLOCK_C)
        weights = tl.load(share + classes, mask=classes < META.C, other=0.0).to(META.ACC)
        weights = tl.where(there, weights[:, None, None], 0.0)
    else:
        weights = there.to(META.ACC)
    return weights


@triton.jit
def no_sums(META: tl.constexpr):
    """The sums over no class."""
    zero = tl.zeros([META.BLOCK_R, META.BLOCK_W], dtype=META.ACC)
    return Sums(zero + float("-inf"), zero, zero, zero, zero, zero, zero)


@triton.jit
def summed(before, scores, pixels, share, first_class, META: tl.constexpr):
    """The sums with BLOCK_C more classes, and the exponentials of these under the new peak."""
    peak = tl.maximum(before.peak, tl.max(scores, axis=0))
    # Where no class is present, -inf less -inf would be NaN.
    level = tl.where(peak == float("-inf"), 0.0, peak)
    exponentials = tl.exp2(scores - level[None])
    if META.BLOCK_C >= META.C:
        offs_c = tl.arange(0, META.BLOCK_C)[:, None, None]
        exponentials = tl.where(offs_c < META.C, exponentials, 0.0)
    total = before.total * tl.exp2(before.peak - level) + tl.sum(exponentials, axis=0)
    member = members(pixels, first_class, META)
    own = before.own + tl.sum(tl.where(member, scores, 0.0), axis=0)
    count, mass, spread = before.count, before.mass, before.spread
    if META.SMOOTHING != 0.0:
        weights = present_weights(scores, share, first_class, META)
        count += tl.sum((scores != float("-inf")).to(META.ACC), axis=0)
        mass += tl.sum(weights, axis=0)
        spread += tl.sum(tl.where(weights == 0.0, 0.0, weights * scores), axis=0)
    return Sums(peak, level, total, own, count, mass, spread), exponentials


@triton.jit
def slopes_of(pixels, sums, META: tl.constexpr):
    """The slopes of pixels, and their weights; all 0 where the own logit is -inf."""
    there = (pixels.label < 0) | (sums.own != float("-inf"))
    weight = tl.where(there, pixels.weight, 0.0)
    whole, own, even = weight, weight, weight
    if META.SMOOTHING != 0.0:
        smoothing = tl.full([1, 1], META.SMOOTHING, META.ACC)
        used = there & (pixels.label >= 0)
        even = tl.where(used, smoothing / tl.maximum(sums.count, 1.0), 0.0)
        own = weight * (1.0 - smoothing)
        # 0 times a weight that is not finite is NaN.
        whole = own + tl.where(used, even * sums.mass, 0.0)
    return Slopes(whole, own, even), weight


@triton.jit
def place_of(block, pixels, labels):
    """Where pixels [BLOCK_R, BLOCK_W] lie in a contiguous tensor (B, H, W)."""
    row = block.image * labels.height + pixels.rows[:, None].to(tl.int64)
    return row * labels.width + block.columns[None, :]


@triton.jit
def upsampled_cross_entropy_kernel(
    logits, labels, share, loss_ptr, mass_ptr, kept, meta: tl.constexpr
):
    """One program per block: losses of pixels, and the sum of their weights.

    Or, where it is for backward, what this needs of each pixel: `kept`.
    """
    META: tl.constexpr = constants(meta)
    block = block_at(tl.program_id(0), logits, labels, 0, META)
    mass = tl.zeros([META.BLOCK_R, META.BLOCK_W], dtype=META.ACC)
    if META.BLOCK_C >= META.C:
        both = rows_around(logits, block, 0, META)
    for first in range(block.row, block.end, META.BLOCK_R):
        pixels = pixels_at(first, logits, labels, share, block, META)
        sums = no_sums(META)
        if META.BLOCK_C >= META.C:
            sums, _ = summed(sums, scores_of(pixels, both), pixels, share, 0, META)
        else:
            for first_class in range(0, META.C, META.BLOCK_C):
                scores = scores_of(pixels, rows_around(logits, block, first_class, META))
                sums, _ = summed(sums, scores, pixels, share, first_class, META)
        slopes, weight = slopes_of(pixels, sums, META)
        place = place_of(block, pixels, labels)
        if kept is not None:
            tl.store(kept.lse + place, sums.level + tl.log2(sums.total), mask=pixels.inside)
            tl.store(kept.whole + place, slopes.whole, mask=pixels.inside)
            if META.SMOOTHING != 0.0:
                tl.store(kept.own + place, slopes.own, mask=pixels.inside)
                tl.store(kept.even + place, slopes.even, mask=pixels.inside)
        else:
            loss = slopes.whole * tl.log2(sums.total) - slopes.own * (sums.own - sums.level)
            if META.SMOOTHING != 0.0:
                loss -= slopes.even * (sums.spread - sums.level * sums.mass)
            loss = tl.where(slopes.whole == 0.0, 0.0, loss / tl.full([1, 1], LOG2E, META.ACC))
            tl.store(loss_ptr + place, loss, mask=pixels.inside)
        mass += weight
    if mass_ptr is not None:
        tl.store(mass_ptr + tl.program_id(0), tl.sum(tl.sum(mass, axis=0), axis=0))


def constants_of(call: UpsampledCall, fewer: int, rows: int) -> Meta:
    """What the kernels are compiled for, and how many classes and rows where not all are held."""
    classes = call.logits.shape[1]
    held = classes <= HELD
    return Meta(
        tl.float64 if call.logits.dtype == torch.float64 else tl.float32,
        C=classes,
        BLOCK_C=power_of_two(classes) if held else fewer,
        BLOCK_R=1 if held else rows,
        BLOCK_W=COLUMNS,
        IGNORE_INDEX=call.ignore_index,
        ALIGNED=call.align_corners,
        SMOOTHING=call.label_smoothing,
    )


def how_of(logits: Tensor) -> dict[str, Any]:
    """As many threads as columns; AMD's warps are twice as wide."""
    return options(COLUMNS // (64 if family(logits) == "gfx942" else 32), 1)


def sweep(call: UpsampledCall, loss: Tensor | None, mass: Tensor | None, kept: Kept | None) -> None:
    """Start the kernel for losses and sums of weights, or for what backward needs."""
    logits, labels = call.logits, call.labels
    arguments = grid_of(logits), grid_of(labels), call.class_weight, loss, mass, kept
    longest = most_in(logits.shape[2], labels.shape[1], call.align_corners)
    meta, count = (
        constants_of(call, FEWER, min(ROWS, power_of_two_below(longest))),
        programs_of(call),
    )
    run(Launch(upsampled_cross_entropy_kernel, count, arguments, meta, how_of(logits)), logits)


def programs_of(call: UpsampledCall) -> int:
    """One per interval of rows and strip of columns."""
    images, _, height = call.logits.shape[:3]
    return images * (height + 1) * tile_count(call.labels.shape[2], COLUMNS)


def upsampled_cross_entropy(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    """Loss of every pixel (B, H, W), and the sum of their weights ()."""
    dtype = accumulation_dtype(call.logits)
    loss = call.logits.new_empty(call.labels.shape, dtype=dtype)
    if loss.numel() == 0:
        return loss, loss.new_zeros(())
    mass = loss.new_empty(programs_of(call))
    sweep(call, loss, mass, None)
    return loss, mass.sum()
