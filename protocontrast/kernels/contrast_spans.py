"""Both gradients of the contrast, or the prototypes' alone, by programs that keep the prototypes.

One has a span of pixels and walks it in tiles of all channels, each of which it reads once. The
prototypes' sums stay in registers until the span ends.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.meta import constants
from protocontrast.kernels.operands import dot, finite, split, times_pixel, unit_of
from protocontrast.kernels.scores import (
    Classes,
    across,
    factor_of,
    in_float16,
    load_blocks,
    products_of,
    side_by_side,
    waited_for,
    without_halves,
)
from protocontrast.kernels.slopes import slopes_of
from protocontrast.kernels.tiles import (
    flat,
    from_channel,
    inside,
    span_at,
    store_tile,
    tile_at,
    tile_of,
)


class Halves(NamedTuple):
    """Slopes [BLOCK_P, BLOCK_C] in as many parts as products take, and what multiplies these."""

    parts: Any
    unit: Any


class Held(NamedTuple):
    """What a program has of the prototypes: the table, its columns, blocks of the matrix, in which
    both halves are, and blocks of the upper halves alone."""

    table: Any
    classes: Any
    factors: Any
    uppers: Any


@triton.jit
def halves_of(slopes, NARROW: tl.constexpr, META: tl.constexpr):
    """The parts of slopes."""
    if META.OPERANDS == "wide":
        return Halves((slopes,), 1.0)
    else:
        unit = unit_of(slopes, NARROW)
        high, low = split(slopes / unit, NARROW)
        if META.OPERANDS == "split":
            return Halves((high, low), unit)
        else:
            return Halves((high,), unit)


@triton.jit
def squares_across(blocks, META: tl.constexpr):
    """Squared lengths [BLOCK_P] of a tile; threads are asked for their sums once, at the end."""
    squares = tl.zeros([META.BLOCK_P, META.BLOCK_D], dtype=META.ACC)
    for part in tl.static_range((META.D + META.BLOCK_D - 1) // META.BLOCK_D):
        wide = blocks[part].to(META.ACC)
        squares += wide * wide
    return tl.sum(squares, axis=1)


@triton.jit
def scores_at_hand(blocks, tile, prepared, factors, META: tl.constexpr):
    """Products [BLOCK_P, BLOCK_C] of a tile with the prototypes, and what they are divided by.

    To read lengths takes less than to read the tile for them, which its products do not need.
    """
    length = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    if META.SIMILARITY == "cosine" and prepared.lengths is not None:
        length = tl.load(prepared.lengths + flat(tile), mask=inside(tile), other=0.0)
    elif META.SIMILARITY == "cosine":
        squared = squares_across(blocks, META)
        length = lengths_of(squared, squared, tile, None, META)
    total = products_of(blocks[0], factors[0], None, META)
    for part in tl.static_range(1, (META.D + META.BLOCK_D - 1) // META.BLOCK_D):
        total = products_of(blocks[part], factors[part], total, META)
    return without_halves(total, META), length


@triton.jit
def add_rows(total, block, halves, largest, META: tl.constexpr):
    """`total` [1 or 2 BLOCK_C, BLOCK_D] and sum_i slope_ic f_i of a block of channels."""
    if META.OPERANDS == "wide":
        return dot(tl.trans(halves.parts[0]), block.to(META.ACC), total, META)
    else:
        pulls = halves.parts[0]
        if META.OPERANDS == "split":
            pulls = side_by_side(halves.parts[0], halves.parts[1], META)
        if block.dtype == tl.float16:
            # What a short pixel's slope is divided by, it is multiplied with.
            block, by = in_float16(block.to(tl.float32) * times_pixel(halves.unit, largest))
            return total + dot(tl.trans(pulls), block, None, META) * by
        else:
            return dot(tl.trans(pulls), block, total, META)


@triton.jit
def pushed_back(halves, held, part: tl.constexpr, META: tl.constexpr):
    """Products [BLOCK_P, BLOCK_D] of slopes with a block of the prototypes that they come from."""
    if META.OPERANDS == "split":
        # The upper half meets both of the matrix, the lower one the upper alone.
        twice = side_by_side(halves.parts[0], halves.parts[0], META)
        found = dot(twice, tl.trans(held.factors[part]), None, META)
        found = dot(halves.parts[1], tl.trans(held.uppers[part]), found, META)
    else:
        found = dot(halves.parts[0], tl.trans(held.factors[part]), None, META)
    return found * halves.unit


@triton.jit
def held_of(prepared, kept, META: tl.constexpr):
    """What a program holds before its first tile."""
    ALONE: tl.constexpr = constants(META, OPERANDS="narrow")
    scale = kept.classes.scale
    if META.SIMILARITY == "cosine":
        # That of all classes: as one number it takes fewer registers.
        scale = tl.full([META.BLOCK_C], 1.0, META.ACC) * tl.load(prepared.table)
    uppers = ()
    if META.OPERANDS == "split":
        for start in tl.static_range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            uppers = uppers + (factor_of(prepared.matrix, offs_d, ALONE),)  # type: ignore[assignment]  # noqa: RUF005
    classes = Classes(scale, kept.classes.offset, kept.classes.share)
    return Held(prepared.table, classes, kept.factors, uppers)


@triton.jit
def write_back(tile, blocks, slopes, halves, held, gradient, META: tl.constexpr):
    """The gradient of a tile, from what its products with the prototypes are sent."""
    # A loop of one trip, which the compiler does not know: blocks are read from shared memory
    # where they are used. Known, it would hold the whole tile in registers from its arrival on.
    for once in range(0, tl.minimum(tile.features.pixels, 1)):
        for part in tl.static_range((META.D + META.BLOCK_D - 1) // META.BLOCK_D):
            block = blocks[part]
            block = tl.where(slopes.kept & (once < 1), block, tl.zeros_like(block))
            found = pushed_back(halves, held, part, META)
            found = across(found, block, slopes.radial, slopes.inverse, META)
            here, offs_d = from_channel(gradient, part * META.BLOCK_D), tl.arange(0, META.BLOCK_D)
            store_tile(here, tile, offs_d, found, META.D - part * META.BLOCK_D)


@triton.jit
def send_kept_tile_back(tile, blocks, slopes, halves, held, gradient, META: tl.constexpr):
    """The features' gradient of a tile, from its slopes and from their halves."""
    if META.SIMILARITY == "cosine":
        # One scale of all classes leaves the halves as they are.
        pushes = Halves(halves.parts, halves.unit * tl.load(held.table))
    else:
        by_class = slopes.products * held.classes.scale[None, :]
        pushes = halves_of(by_class, blocks[0].dtype, META)
    write_back(tile, blocks, slopes, pushes, held, gradient, META)


@triton.jit
def send_kept_tiles_back(features, given, prepared, kept, gradient, walk, META: tl.constexpr):
    """The features' gradient of every so many-th tile."""
    tiles, programs = walk
    held = held_of(prepared, kept, META)
    for number in range(tl.program_id(0), tiles, programs):
        tile = tile_of(features, number, META)
        blocks = load_blocks(tile, META)
        total, length = scores_at_hand(blocks, tile, prepared, held.factors, META)
        slopes = slopes_of(total, length, tile, given, prepared, held.classes, META)
        halves = halves_of(slopes.products, blocks[0].dtype, META)
        # Without the branch the loop that it encloses would keep this one from being a pipeline.
        if number < tiles:
            send_kept_tile_back(tile, blocks, slopes, halves, held, gradient, META)


@triton.jit
def send_kept_span_back(features, given, prepared, kept, gradient, partial, META: tl.constexpr):
    """The gradients of SPAN pixels, in tiles of which a program has all channels at hand; whether
    the prototypes' is to be summed once more, with care.

    All is summed as if it were finite: 0 times NaN is NaN, and so an ignored pixel may have reached
    the sums where these are not.
    """
    PARTS: tl.constexpr = (META.D + META.BLOCK_D - 1) // META.BLOCK_D
    HALVES: tl.constexpr = 2 if META.OPERANDS == "split" else 1
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    slot = partial + tl.program_id(0).to(tl.int64) * META.C * META.D
    held = held_of(prepared, kept, META)
    sums = ()
    for _ in tl.static_range(PARTS):
        nothing = tl.zeros([HALVES * META.BLOCK_C, META.BLOCK_D], dtype=META.ACC)
        sums = sums + (nothing,)  # type: ignore[assignment]  # noqa: RUF005
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        blocks = load_blocks(tile, META)
        total, length = scores_at_hand(blocks, tile, prepared, held.factors, META)
        slopes = slopes_of(total, length, tile, given, prepared, held.classes, META)
        halves = halves_of(slopes.products, blocks[0].dtype, META)
        largest = tl.max(tl.abs(slopes.products), axis=1)[:, None]
        added = ()
        for part in tl.static_range(PARTS):
            more = waited_for(add_rows(sums[part], blocks[part], halves, largest, META))
            added = added + (more,)  # type: ignore[assignment]  # noqa: RUF005
        sums = added
        # Behind the end there is nothing to write. Without the branch the loop that it encloses
        # would keep this one from being a pipeline.
        if gradient is not None and step < features.pixels:
            send_kept_tile_back(tile, blocks, slopes, halves, held, gradient, META)
    doubt = 0
    for part in tl.static_range(PARTS):
        offs_d = part * META.BLOCK_D + tl.arange(0, META.BLOCK_D)
        whole = tl.sum(tl.reshape(sums[part], [HALVES, META.BLOCK_C, META.BLOCK_D]), axis=0)
        add_to_slot(slot, tl.trans(whole), offs_d, 0, META.C, META.D)
        doubt += tl.max((~finite(sums[part])).to(tl.int32))
    return doubt > 0
