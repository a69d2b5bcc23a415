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
from protocontrast.kernels.scores import weighted_sum
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import load_tile, map_of, span_at, tile_at


@triton.jit
def read_lengths(tile, META: tl.constexpr):
    """One over the length of each pixel of a tile, [BLOCK_P]; 0 where it is 0."""
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        wide = load_tile(tile, start + tl.arange(0, META.BLOCK_D), META).to(META.ACC)
        squared += tl.sum(wide * wide, axis=1)
    return inverse_of(pixel_lengths(squared, tile, META))


@triton.jit
def finite_or_zero(block, ACC: tl.constexpr):
    """The block with 0 in place of what is not finite, and how many of each pixel were, [BLOCK_P].

    A product with one-hot labels would spread it to every class, since 0 * NaN is NaN.
    """
    wide = block.to(ACC)
    finite = wide - wide == 0.0
    return tl.where(finite, block, tl.zeros_like(block)), tl.sum((~finite).to(tl.int32), axis=1)


@triton.jit
def strays_of(block, member, weight, META: tl.constexpr):
    """What `finite_or_zero` left out of the classes' sums, [BLOCK_D, BLOCK_C], class by class."""
    offs_c = tl.arange(0, META.BLOCK_C)
    wide = block.to(META.ACC)
    stray = wide - wide != 0.0
    total = tl.zeros([block.shape[1], META.BLOCK_C], dtype=META.ACC)
    for c in range(META.C):
        own = offs_c[None, :] == c
        inside = tl.sum((own & (member != 0.0)).to(tl.int32), axis=1) > 0
        factor = tl.sum(tl.where(own, weight, 0.0), axis=1)
        pulled = tl.where(inside[:, None] & stray, wide * factor[:, None], 0.0)
        total += tl.where(own, tl.sum(pulled, axis=0)[:, None], 0.0)
    return total


@triton.jit
def add_strays(slot, features, targets, image, first, low, META: tl.constexpr):
    """A second walk of a span in which a pixel that counts is not finite: its value is added to
    its own class and channel, after the finite ones.

    It is to happen rarely and in few registers, so BLOCK_P is small."""
    share = (tl.arange(0, META.BLOCK_C) < META.C).to(META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        # The slot's elements may belong to other threads than those that stored them last.
        tl.debug_barrier()
        tile = tile_at(features, image, first + step, META)
        member, _ = masses(targets, tile, share, META)
        weight = member
        if META.NORMALIZE:
            weight = member * read_lengths(tile, META)[:, None]
        for start in range(0, META.GROUP_D, META.BLOCK_D):
            offs_d = low + start + tl.arange(0, META.BLOCK_D)
            part = strays_of(load_tile(tile, offs_d, META), member, weight, META)
            add_to_slot(slot, part, offs_d, 1, META.C, META.D)


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
def class_sums_kernel(features, targets, partial, counts, meta: tl.constexpr):
    """One program per SPAN pixels of one image and GROUP_D channels: BLOCK_D, or D for lengths."""
    META: tl.constexpr = constants(meta)
    SINGLE: tl.constexpr = META.GROUP_D <= META.BLOCK_D
    groups = tl.cdiv(META.D, META.GROUP_D)
    number = tl.program_id(0) // groups
    low = (tl.program_id(0) % groups) * META.GROUP_D
    image, first = span_at(features, number, META.SPAN)
    offs_c = tl.arange(0, META.BLOCK_C)
    share = (offs_c < META.C).to(META.ACC)
    slot = partial + number.to(tl.int64) * META.C * META.D
    count = tl.zeros([META.BLOCK_C], dtype=META.ACC)
    strays = tl.zeros([META.BLOCK_P], dtype=tl.int32)
    if SINGLE:
        whole = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        member, mass = masses(targets, tile, share, META)
        count += tl.sum(member, axis=0)
        weight = member
        if META.NORMALIZE:
            weight, unread = readable_weight(member, read_lengths(tile, META))
        for start in range(0, META.GROUP_D, META.BLOCK_D):
            offs_d = low + start + tl.arange(0, META.BLOCK_D)
            clean, lost = finite_or_zero(load_tile(tile, offs_d, META), META.ACC)
            strays += tl.where(mass != 0.0, lost, 0)
            part = weighted_sum(clean, weight, META, META.NORMALIZE)
            if META.NORMALIZE:
                part += unread[None, :].to(META.ACC)
            if SINGLE:
                whole += part
            else:
                add_to_slot(slot, part, offs_d, step, META.C, META.D)
        if not SINGLE:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if SINGLE:
        add_to_slot(slot, whole, low + tl.arange(0, META.BLOCK_D), 0, META.C, META.D)
    # Programs of one slot count the same pixels; the first of them says so.
    told = tl.where(low == 0, META.C, 0)
    tl.store(counts + number.to(tl.int64) * META.C + offs_c, count, mask=offs_c < told)
    if tl.sum(strays) > 0:
        FEW: tl.constexpr = min(META.BLOCK_P, 32)
        add_strays(slot, features, targets, image, first, low, constants(META, BLOCK_P=FEW))


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
    if in_parts:
        return partial.flatten(0, 1), count.flatten(0, 1)
    if call.per_image:
        return partial.sum(dim=1), count.sum(dim=1)
    return partial.sum(dim=(0, 1))[None], count.sum(dim=(0, 1))[None]
