"""Gradient of the prototypes from logits that the contrast's forward has left.

Slopes then need no features, and so a program has a group of channels alone, of a span of pixels.
It reads each of its tiles once, and the sums stay in registers until the span ends.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.launch import Launch, long_span, plan, run, span_of, tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.operands import dot, finite, split, times_pixel, unit_of
from protocontrast.kernels.prototypes import Prototypes, finish, prepare_with_lengths
from protocontrast.kernels.scores import classes_of, in_float16, side_by_side, waited_for
from protocontrast.kernels.slopes import slopes_left
from protocontrast.kernels.tiles import load_tile, map_of, span_at, tile_at

AT_ONCE = 512
"""Channels whose sums a program holds at most."""


@triton.jit
def add_pixels(total, block, slope, META: tl.constexpr):
    """`total` [BLOCK_D, 1 or 2 BLOCK_C] and sum_i slope_ic f_i of a block [BLOCK_P, BLOCK_D]."""
    if META.OPERANDS == "wide":
        return dot(tl.trans(block.to(META.ACC)), slope, total, META)
    else:
        unit = unit_of(slope, block.dtype)
        factor, low = split(slope / unit, block.dtype)
        if META.OPERANDS == "split":
            factor = side_by_side(factor, low, META)
        if block.dtype == tl.float16:
            # What a short pixel's slope is divided by, it is multiplied with.
            largest = tl.max(tl.abs(slope), axis=1)[:, None]
            block, by = in_float16(block.to(tl.float32) * times_pixel(unit, largest))
            return total + dot(tl.trans(block), factor, None, META) * by
        else:
            return dot(tl.trans(block), factor, total, META)


@triton.jit
def sum_span(features, prepared, given, number, low, CAREFUL: tl.constexpr, META: tl.constexpr):
    """Sums [BLOCK_D, BLOCK_C] of a span of pixels, for each block of a group of channels.

    With care, what ignored pixels hold does not matter.
    """
    PARTS: tl.constexpr = META.GROUP_D // META.BLOCK_D
    HALVES: tl.constexpr = 2 if META.OPERANDS == "split" else 1
    image, first = span_at(features, number, META.SPAN)
    classes = classes_of(prepared.table, META)
    sums = ()
    for _ in tl.static_range(PARTS):
        nothing = tl.zeros([META.BLOCK_D, HALVES * META.BLOCK_C], dtype=META.ACC)
        sums = sums + (nothing,)  # type: ignore[assignment]  # noqa: RUF005
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        slopes = slopes_left(tile, given, prepared, classes, META)
        added = ()
        for part in tl.static_range(PARTS):
            offs_d = low + part * META.BLOCK_D + tl.arange(0, META.BLOCK_D)
            block = load_tile(tile, offs_d, META)
            if CAREFUL:
                block = tl.where(slopes.kept, block, tl.zeros_like(block))
            more = waited_for(add_pixels(sums[part], block, slopes.products, META))
            added = added + (more,)  # type: ignore[assignment]  # noqa: RUF005
        sums = added
    joined = ()
    for part in tl.static_range(PARTS):
        whole = tl.reshape(sums[part], [META.BLOCK_D, HALVES, META.BLOCK_C])
        joined = joined + (tl.sum(whole, axis=1),)  # type: ignore[assignment]  # noqa: RUF005
    return joined


@triton.jit
def store_group(slot, sums, low, META: tl.constexpr):
    """The sums into a slot; whether all are finite."""
    doubt = 0
    for part in tl.static_range(META.GROUP_D // META.BLOCK_D):
        offs_d = low + part * META.BLOCK_D + tl.arange(0, META.BLOCK_D)
        add_to_slot(slot, sums[part], offs_d, 0, META.C, META.D)
        doubt += tl.max((~finite(sums[part])).to(tl.int32))
    return doubt == 0


@triton.jit
def slope_sums_kernel(features, prepared, given, partial, meta: tl.constexpr):
    """One program per SPAN pixels of one image and GROUP_D channels."""
    META: tl.constexpr = constants(meta)
    FEW: tl.constexpr = constants(META, BLOCK_P=16)
    groups = tl.cdiv(META.D, META.GROUP_D)
    number = tl.program_id(0) // groups
    low = (tl.program_id(0) % groups) * META.GROUP_D
    slot = partial + number.to(tl.int64) * META.C * META.D
    sums = sum_span(features, prepared, given, number, low, False, META)
    # 0 times NaN is NaN: what an ignored pixel holds may have reached the sums.
    if not store_group(slot, sums, low, META):
        # The slot's elements may belong to other threads than those that stored them last.
        tl.debug_barrier()
        store_group(slot, sum_span(features, prepared, given, number, low, True, FEW), low, META)


def slope_sums(features: Tensor, given: Prototypes, of_pixels: Any, ignore_index: int) -> Tensor:
    """The gradient of prototypes that were made ready with logits; `of_pixels` are targets and what
    comes back to their losses."""
    images, channels, pixels = features.shape
    classes = len(given.rows)
    meta, how = plan("slope_sums", features, classes)
    groups = tile_count(channels, AT_ONCE)
    group = meta.BLOCK_D * tile_count(tile_count(channels, groups), meta.BLOCK_D)
    groups = tile_count(channels, group)
    span = span_of(images, channels, pixels, features.element_size(), classes)
    span = long_span(span, images, pixels, groups)
    slots = images * tile_count(pixels, span)
    partial = features.new_empty(slots, classes, channels, dtype=accumulation_dtype(features))
    meta = meta._replace(
        SPAN=span, GROUP_D=group, SIMILARITY=given.similarity, IGNORE_INDEX=ignore_index
    )
    arguments = map_of(features), prepare_with_lengths(features, given), of_pixels, partial
    run(Launch(slope_sums_kernel, slots * groups, arguments, meta, how), features)
    return finish(features, partial.sum(dim=0), given)
