"""Class sums and counts in one read: (M1) for `class_prototypes`, forward.

The gradient is in class_prototypes_backward.py.
"""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    plan,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.meta import constants
from protocontrast.kernels.operands import dot, split
from protocontrast.kernels.scores import waited_for, weighted_sum
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import load_across, map_of, span_at, tile_at


@triton.jit
def squares_of(across, META: tl.constexpr):
    """Squared lengths [BLOCK_P] of a block of channels [BLOCK_D, BLOCK_P]."""
    wide = across.to(META.ACC)
    return tl.sum(wide * wide, axis=0)


@triton.jit
def read_lengths(tile, META: tl.constexpr):
    """One over the length of each pixel of a tile, [BLOCK_P]; 0 where it is 0."""
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        squared += squares_of(load_across(tile, start + tl.arange(0, META.BLOCK_D), META), META)
    return inverse_of(pixel_lengths(squared, tile, META))


@triton.jit
def add_members(total, across, weight, EXACT: tl.constexpr, META: tl.constexpr):
    """`total`, or nothing where that is None, and sum_i weight_ic f_i, [BLOCK_D, BLOCK_C].

    EXACT: weights are 0 and 1, which 16 bits hold.
    """
    if META.OPERANDS == "wide":
        return dot(across.to(META.ACC), weight, total, META)
    elif EXACT:
        return dot(across, weight.to(across.dtype), total, META)
    elif across.dtype == tl.float16:
        part = weighted_sum(tl.trans(across), weight, META, META.NORMALIZE)
        return part if total is None else total + part
    else:
        high, low = split(weight, across.dtype)
        total = dot(across, high, total, META)
        if META.OPERANDS == "split":
            total = dot(across, low, total, META)
        return total


@triton.jit
def readable_weight(member, inverse):
    """Masses over lengths, [BLOCK_P, BLOCK_C], and NaN for classes with a pixel without length.

    In a product NaN would reach every class; it is added to its own class instead.
    """
    readable = inverse == inverse
    weight = member * tl.where(readable, inverse, 0.0)[:, None]
    unread = (member != 0.0) & (inverse != inverse)[:, None]
    return weight, tl.sum(tl.where(unread, float("nan"), 0.0), axis=0)


@triton.jit
def strays_of(wide, stray, member, weight, META: tl.constexpr):
    """Values [BLOCK_D, BLOCK_P] that no product may meet, summed class by class."""
    offs_c = tl.arange(0, META.BLOCK_C)
    total = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
    counting = stray & (tl.max((member != 0.0).to(tl.int32), axis=1) > 0)[None, :]
    stop = META.C if tl.max(counting.to(tl.int32)) > 0 else 0
    for c in range(0, stop):
        own = offs_c[None, :] == c
        inside = tl.sum((own & (member != 0.0)).to(tl.int32), axis=1) > 0
        factor = tl.sum(tl.where(own, weight, 0.0), axis=1)
        pulled = tl.where(inside[None, :] & stray, wide * factor[None, :], 0.0)
        total += tl.where(own, tl.sum(pulled, axis=1)[:, None], 0.0)
    return total


@triton.jit
def sum_with_care(slot, features, targets, image, first, low, META: tl.constexpr):
    """A second walk of a span, into its slot anew, for what is not finite.

    In a product it would reach every class, and that of an ignored pixel its own channel, since
    0 * NaN is NaN: it goes in as 0. Of a pixel that counts it is added to its own class and channel.
    That is to happen rarely and in few registers, so tiles are small.
    """
    share = (tl.arange(0, META.BLOCK_C) < META.C).to(META.ACC)
    # The slot's elements may belong to other threads than those that stored them last.
    tl.debug_barrier()
    for start in range(0, META.GROUP_D, META.BLOCK_D):
        offs_d = low + start + tl.arange(0, META.BLOCK_D)
        total = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
        for step in range(0, META.SPAN, META.BLOCK_P):
            tile = tile_at(features, image, first + step, META)
            member, _ = masses(targets, tile, share, META)
            weight = member
            if META.NORMALIZE:
                weight, unread = readable_weight(member, read_lengths(tile, META))
                total += unread[None, :].to(META.ACC)
            block = load_across(tile, offs_d, META)
            wide = block.to(META.ACC)
            stray = wide - wide != 0.0
            clean = tl.where(stray, tl.zeros_like(block), block)
            total += add_members(None, clean, weight, False, META)
            total += strays_of(wide, stray, member, weight, META)
        add_to_slot(slot, total, offs_d, 0, META.C, META.D)


@triton.jit
def class_sums_kernel(features, targets, partial, counts, meta: tl.constexpr):
    """One program per SPAN pixels of one image and GROUP_D channels: BLOCK_D, or D for lengths."""
    META: tl.constexpr = constants(meta)
    SINGLE: tl.constexpr = META.GROUP_D <= META.BLOCK_D
    EXACT: tl.constexpr = targets.weight is None and not META.NORMALIZE
    groups = tl.cdiv(META.D, META.GROUP_D)
    number = tl.program_id(0) // groups
    low = (tl.program_id(0) % groups) * META.GROUP_D
    image, first = span_at(features, number, META.SPAN)
    offs_c, offs_d = tl.arange(0, META.BLOCK_C), low + tl.arange(0, META.BLOCK_D)
    share = (offs_c < META.C).to(META.ACC)
    slot = partial + number.to(tl.int64) * META.C * META.D
    count = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    total = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
    # All is summed as if it were finite.
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        member, _ = masses(targets, tile, share, META)
        count += member
        weight = member
        if SINGLE:
            across = load_across(tile, offs_d, META)
            if META.NORMALIZE:
                lengths = pixel_lengths(squares_of(across, META), tile, META)
                weight *= inverse_of(lengths)[:, None]
            total = add_members(total, across, weight, EXACT, META)
            if META.NORMALIZE:
                total = waited_for(total)
        else:
            weight *= read_lengths(tile, META)[:, None]
            for start in range(0, META.GROUP_D, META.BLOCK_D):
                across = load_across(tile, start + offs_d, META)
                part = add_members(None, across, weight, EXACT, META)
                total += part - part
                add_to_slot(slot, part, start + offs_d, step, META.C, META.D)
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if SINGLE:
        add_to_slot(slot, total, offs_d, 0, META.C, META.D)
    # Programs of one slot count the same pixels; the first of them says so.
    told = tl.where(low == 0, META.C, 0)
    where_to = counts + number.to(tl.int64) * META.C + offs_c
    tl.store(where_to, tl.sum(count, axis=0), mask=offs_c < told)
    if tl.max((total - total != 0.0).to(tl.int32)) > 0:
        FEW: tl.constexpr = constants(
            META, BLOCK_P=min(META.BLOCK_P, 32), BLOCK_D=min(META.BLOCK_D, 64)
        )
        sum_with_care(slot, features, targets, image, first, low, FEW)


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1.

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
    meta, how = plan("class_sums", features, num_classes)
    span = span_of(images, channels, pixels, features.element_size(), num_classes)
    spans = tile_count(pixels, span)
    partial = features.new_empty(images, spans, num_classes, channels, dtype=acc)
    count = features.new_empty(images, spans, num_classes, dtype=acc)
    meta = meta._replace(
        SPAN=span,
        GROUP_D=channels if call.normalize else meta.BLOCK_D,
        NORMALIZE=call.normalize,
        IGNORE_INDEX=call.ignore_index,
    )
    arguments = map_of(features), targets_of(call), partial, count
    programs = images * spans * tile_count(channels, meta.GROUP_D)
    run(Launch(class_sums_kernel, programs, arguments, meta, how), features)
    if call.per_image:
        return partial.sum(dim=1), count.sum(dim=1)
    return partial.sum(dim=(0, 1))[None], count.sum(dim=(0, 1))[None]
