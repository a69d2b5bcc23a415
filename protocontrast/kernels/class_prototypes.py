"""Class sums and counts in one read: (M1) for `class_prototypes`, forward.

The gradient is in class_prototypes_backward.py.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall, accumulation_dtype
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.launch import Launch, long_span, plan, run, span_of, tile_count
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.meta import Meta, constants, named
from protocontrast.kernels.operands import (
    THIRD,
    dot,
    finite,
    power_below,
    split,
    times_pixel,
    upper_third,
)
from protocontrast.kernels.scores import in_float16, waited_for
from protocontrast.kernels.targets import members_of, targets_of
from protocontrast.kernels.tiles import load_across, map_of, span_at, tile_at


class Span(NamedTuple):
    """Pixels of one image from the first on, and channels from `low` on; the slot of their sums."""

    features: Any
    image: Any
    first: Any
    low: Any
    slot: Any


@triton.jit
def squares_of(across, META: tl.constexpr):
    """Squared lengths [BLOCK_P] of a block of channels [BLOCK_D, BLOCK_P]."""
    wide = across.to(META.ACC)
    return tl.sum(wide * wide, axis=0)


@triton.jit
def few_squares(across, META: tl.constexpr):
    """Squares of a block in fewer rows, which threads sum among their own."""
    ROWS: tl.constexpr = min(META.BLOCK_D, 32)
    wide = across.to(META.ACC)
    return tl.sum(tl.reshape(wide * wide, [META.BLOCK_D // ROWS, ROWS, META.BLOCK_P]), axis=0)


@triton.jit
def read_squares(tile, META: tl.constexpr):
    """The same over all channels of a tile."""
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        squared += squares_of(load_across(tile, start + tl.arange(0, META.BLOCK_D), META), META)
    return squared


@triton.jit
def in_rows(label, factor, rows):
    """Factors [BLOCK_P] in their own class's row; 0 elsewhere."""
    return tl.where(label[None, :] == rows[:, None], factor[None, :], 0.0)


@triton.constexpr_function
def parts_of(meta: Meta) -> int:
    """Blocks of channels of which a program has sums in registers; 0: they are in its slot."""
    meta = named(meta)
    held = meta.PROGRAMS > 0 or meta.GROUP_D <= meta.BLOCK_D
    return (meta.GROUP_D + meta.BLOCK_D - 1) // meta.BLOCK_D if held else 0


@triton.jit
def no_members(META: tl.constexpr):
    """What `add_members` begins with: 0. Of several blocks halves have no registers apart."""
    BESIDE: tl.constexpr = META.OPERANDS == "split" and META.BLOCK_C <= 128 and parts_of(META) < 2
    HALVES: tl.constexpr = 2 if BESIDE and not META.UNWEIGHTED else 1
    return tl.zeros([META.BLOCK_D, HALVES * META.BLOCK_C], dtype=META.ACC)


@triton.jit
def add_members(total, across, label, factor, META: tl.constexpr):
    """`total` [BLOCK_D, BLOCK_C] and sum_i factor_i f_i of a block [BLOCK_D, BLOCK_P] by class.

    Factors of 1 are exact in 16 bits. Others are not: the columns of their halves lie side by
    side, [BLOCK_D, 2 BLOCK_C], and one product takes both; of more than 128 classes it takes two.
    Float32 features in thirds are multiplied by their factors before.
    """
    rows = tl.arange(0, total.shape[1])
    if META.PRECISION == "thirds":
        ones = tl.trans(in_rows(label, tl.full([META.BLOCK_P], 1.0, THIRD), rows))
        if not META.UNWEIGHTED:
            across = across * factor[None, :]
        for _ in tl.static_range(3):
            third = upper_third(across)
            total = tl.dot(third.to(THIRD), ones, total, input_precision="ieee", out_dtype=META.ACC)
            across = across - third
        return total
    elif META.OPERANDS == "wide":
        return dot(across.to(META.ACC), tl.trans(in_rows(label, factor, rows)), total, META)
    elif META.UNWEIGHTED:
        ones = in_rows(label, factor, rows).to(across.dtype)
        return dot(across, tl.trans(ones), total, META)
    else:
        unit = 1.0
        if across.dtype == tl.float16:
            if META.NORMALIZE:
                # What a short pixel's factor is divided by, it is multiplied with.
                largest = tl.abs(factor)
                size = power_below(largest)
                factor = factor / size
                by = times_pixel(size, largest)
                across, unit = in_float16(across.to(tl.float32) * by[None, :])
            else:
                unit = power_below(tl.max(tl.abs(factor)))
                factor = factor / unit
        high, low = split(factor, across.dtype)
        own = label[None, :] == (rows % META.BLOCK_C)[:, None]
        half = tl.where((rows < META.BLOCK_C)[:, None], high[None, :], low[None, :])
        half = tl.trans(tl.where(own, half, tl.zeros_like(half)))
        if total.shape[1] == META.BLOCK_C and META.OPERANDS == "split":
            lower = tl.trans(in_rows(label, low, rows))
            if across.dtype == tl.float16:
                part = dot(across, lower, None, META)
                return total + dot(across, half, part, META) * unit
            return dot(across, half, dot(across, lower, total, META), META)
        elif across.dtype == tl.float16:
            return total + dot(across, half, None, META) * unit
        else:
            return dot(across, half, total, META)


@triton.jit
def add_carefully(total, across, label, factor, META: tl.constexpr):
    """The same where not all is finite.

    In a product that would reach every class, and of an ignored pixel its own channel, since
    0 * NaN is NaN: it goes in as 0. Of a pixel that counts it is added to its own class alone.
    """
    wide = across.to(META.ACC) * factor[None, :]
    kept = finite(wide)
    clean = tl.where(kept, across, tl.zeros_like(across))
    total = add_members(total, clean, label, tl.where(finite(factor), factor, 0.0), META)
    stray = ~kept & (label >= 0)[None, :]
    stop = META.C if tl.max(stray.to(tl.int32)) > 0 else 0
    for c in range(0, stop):
        pulled = tl.sum(tl.where(stray & (label == c)[None, :], wide, 0.0), axis=1)
        own = tl.arange(0, total.shape[1])[None, :] == c
        total += tl.where(own, pulled[:, None], 0.0)
    return total


@triton.jit
def halves_joined(total, META: tl.constexpr):
    """[BLOCK_D, BLOCK_C] of what `add_members` has summed."""
    if total.shape[1] == META.BLOCK_C:
        return total
    else:
        return tl.sum(tl.reshape(total, [total.shape[0], 2, META.BLOCK_C]), axis=1)


@triton.jit
def add_blocks(span, tile, label, factor, again, CAREFUL: tl.constexpr, META: tl.constexpr):
    """GROUP_D channels of a tile added to the slot, or set the first time, when `again` is 0.

    Returns 0 in the form of `no_members`, or NaN where the sums are not finite.
    """
    doubt = no_members(META)
    for start in range(0, META.GROUP_D, META.BLOCK_D):
        offs_d = span.low + start + tl.arange(0, META.BLOCK_D)
        across = load_across(tile, offs_d, META)
        if CAREFUL:
            part = add_carefully(no_members(META), across, label, factor, META)
        else:
            part = add_members(no_members(META), across, label, factor, META)
            doubt += part - part
        add_to_slot(span.slot, halves_joined(part, META), offs_d, again, META.C, META.D)
    # The next tile's loads of the slot may belong to other threads than these stores.
    tl.debug_barrier()
    return doubt


@triton.jit
def blocks_across(span, tile, PARTS: tl.constexpr, META: tl.constexpr):
    """The span's channels of a tile, block by block [BLOCK_D, BLOCK_P]."""
    blocks = ()
    for part in tl.static_range(PARTS):
        offs_d = span.low + part * META.BLOCK_D + tl.arange(0, META.BLOCK_D)
        blocks = blocks + (load_across(tile, offs_d, META),)  # type: ignore[assignment]  # noqa: RUF005
    return blocks


@triton.jit
def counted(span, targets, META: tl.constexpr):
    """Weights [BLOCK_C] of a span of pixels by class."""
    count = tl.zeros([META.BLOCK_C, META.BLOCK_P], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(span.features, span.image, span.first + step, META)
        label, weight = members_of(targets, tile, META)
        count += in_rows(label, weight, tl.arange(0, META.BLOCK_C))
    return tl.sum(count, axis=1)


@triton.jit
def walk(span, targets, CAREFUL: tl.constexpr, META: tl.constexpr):
    """Sums of a span of pixels and BLOCK_D channels, as `add_members` leaves them, and counts.

    The sums are one for each of `parts_of`; where that is 0 they are in the slot instead, and the
    first result is 0, or NaN if not all of them are finite.
    """
    PARTS: tl.constexpr = parts_of(META)
    offs_c = tl.arange(0, META.BLOCK_C)
    totals = (no_members(META),)
    for _ in tl.static_range(1, PARTS):
        totals = totals + (no_members(META),)  # type: ignore[assignment]  # noqa: RUF005
    count = tl.zeros([META.BLOCK_C, META.BLOCK_P], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(span.features, span.image, span.first + step, META)
        label, factor = members_of(targets, tile, META)
        count += in_rows(label, factor, offs_c)
        if PARTS > 0:
            blocks = blocks_across(span, tile, PARTS, META)
            if META.NORMALIZE:
                squares = few_squares(blocks[0], META)
                for part in tl.static_range(1, PARTS):
                    squares += few_squares(blocks[part], META)
                squared = tl.sum(squares, axis=0)
                factor *= inverse_of(pixel_lengths(squared, tile, META))
            added = ()
            for part in tl.static_range(PARTS):
                if CAREFUL:
                    more = add_carefully(totals[part], blocks[part], label, factor, META)
                else:
                    more = add_members(totals[part], blocks[part], label, factor, META)
                    if META.NORMALIZE:
                        more = waited_for(more)
                added = added + (more,)  # type: ignore[assignment]  # noqa: RUF005
            totals = added  # type: ignore[assignment]
        else:
            if META.NORMALIZE:
                factor *= inverse_of(pixel_lengths(read_squares(tile, META), tile, META))
            totals = (totals[0] + add_blocks(span, tile, label, factor, step, CAREFUL, META),)
    return totals, tl.sum(count, axis=1)


@triton.jit
def store_sums(span, totals, targets, META: tl.constexpr):
    """The result of `walk` into the slot where it is not there yet; and where not all of it is
    finite that of a second walk, with care.

    That is to happen rarely and in few registers, so its tiles are small.
    """
    PARTS: tl.constexpr = parts_of(META)
    # Of several blocks the sums are then added to the slot.
    LEFT: tl.constexpr = META.PROGRAMS if PARTS < 2 else 0
    FEW: tl.constexpr = constants(META, BLOCK_P=min(META.BLOCK_P, 16), PROGRAMS=LEFT)
    every_d = tl.arange(0, META.BLOCK_D)
    doubt = tl.max((~finite(totals[0])).to(tl.int32))
    for part in tl.static_range(PARTS):
        offs_d = span.low + part * META.BLOCK_D + every_d
        add_to_slot(span.slot, halves_joined(totals[part], META), offs_d, 0, META.C, META.D)
        doubt += tl.max((~finite(totals[part])).to(tl.int32))
    if doubt > 0:
        # The slot's elements may belong to other threads than those that stored them last.
        tl.debug_barrier()
        again, _ = walk(span, targets, True, FEW)
        if PARTS == 1:
            whole = halves_joined(again[0], META)
            add_to_slot(span.slot, whole, span.low + every_d, 0, META.C, META.D)


@triton.jit
def class_sums_kernel(features, targets, partial, counts, meta: tl.constexpr):
    """One program per SPAN pixels of one image and GROUP_D channels: BLOCK_D, or D for lengths."""
    META: tl.constexpr = constants(meta)
    groups = tl.cdiv(META.D, META.GROUP_D)
    number = tl.program_id(0) // groups
    low = (tl.program_id(0) % groups) * META.GROUP_D
    image, first = span_at(features, number, META.SPAN)
    offs_c = tl.arange(0, META.BLOCK_C)
    span = Span(features, image, first, low, partial + number.to(tl.int64) * META.C * META.D)
    totals, count = walk(span, targets, False, META)
    # Programs of one slot count the same pixels; the first of them says so.
    told = tl.where(low == 0, META.C, 0)
    tl.store(counts + number.to(tl.int64) * META.C + offs_c, count, mask=offs_c < told)
    store_sums(span, totals, targets, META)


def class_sums(call: ClassSumsCall, in_parts: bool = False) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1; or, in parts, as programs.

    What is not finite reaches its own class and channel alone; normalised, NaN every channel.
    """
    features, num_classes = call.features, call.num_classes
    images, channels, pixels = features.shape
    acc = accumulation_dtype(features)
    if images * pixels == 0:
        groups = images if call.per_image else 1
        return (
            features.new_zeros(groups, num_classes, channels, dtype=acc),
            features.new_zeros(groups, num_classes, dtype=acc),
        )
    row = "class_sums_normalize" if call.normalize else "class_sums"
    # In float16 each block's product is rescaled, for which sums of all have no registers.
    meta, how = plan(row, features, num_classes, keeps=features.dtype != torch.float16)
    span = span_of(images, channels, pixels, features.element_size(), num_classes)
    group = channels if call.normalize else meta.BLOCK_D
    groups = tile_count(channels, group)
    span = long_span(span, images, pixels, groups)
    spans = tile_count(pixels, span)
    partial = features.new_empty(images * spans, num_classes, channels, dtype=acc)
    count = features.new_empty(images * spans, num_classes, dtype=acc)
    meta = meta._replace(
        SPAN=span,
        GROUP_D=group,
        NORMALIZE=call.normalize,
        UNWEIGHTED=call.pixel_weight is None and not call.normalize,
        IGNORE_INDEX=call.ignore_index,
    )
    arguments = map_of(features), targets_of(call), partial, count
    programs = images * spans * groups
    run(Launch(class_sums_kernel, programs, arguments, meta, how), features)
    if in_parts:
        return partial, count
    parts = (images, spans) if call.per_image else (1, images * spans)
    return partial.unflatten(0, parts).sum(dim=1), count.unflatten(0, parts).sum(dim=1)
