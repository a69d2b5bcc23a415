"""Device functions for lengths of pixels and distances whose squares may leave the dtype's range.

Squares are summed as they are, beside the products. Where a sum of a tile is out of a safe range,
the tile is read again, twice: for the largest magnitude, and for squares of what is divided by it.
"""

import triton
import triton.language as tl

from protocontrast.kernels.operands import square_root
from protocontrast.kernels.tiles import flat, inside, load_tile

AT_ONCE = tl.constexpr(1024)
"""Numbers in a block of a second read: few, so that it takes few registers beside the first."""


@triton.jit
def out_of_range(squared, ACC: tl.constexpr):
    """Whether a sum of squares may have lost some of them; 0 is one of those, NaN is not."""
    if ACC == tl.float32:
        return (squared < 2.0**-40) | (squared > 2.0**40)
    else:
        return (squared < 2.0**-300) | (squared > 2.0**300)


@triton.jit
def size_of(largest):
    """What to divide by before squaring: the largest magnitude, or 1 for 0 and infinity."""
    return tl.where((largest > 0.0) & (largest < float("inf")), largest, 1.0)


@triton.jit
def inverse_of(length):
    """1 / length, and 0 where that is 0; NaN stays NaN."""
    return tl.where(length == 0.0, 0.0, 1.0 / tl.where(length == 0.0, 1.0, length))


@triton.jit
def one_by_one(values, META: tl.constexpr):
    """The values [BLOCK_P] themselves, one per thread.

    Gathered, though each from its own place: triton would go on in the layout of the features, in
    which many threads compute the same, or force it upon the products.
    """
    return tl.gather(values, tl.arange(0, META.BLOCK_P), 0)


@triton.jit
def mended_lengths(tile, META: tl.constexpr):
    """Lengths [BLOCK_P] of a tile of pixels, read twice more."""
    STEP: tl.constexpr = AT_ONCE // META.BLOCK_P
    largest = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, STEP):
        wide = load_tile(tile, start + tl.arange(0, STEP), META).to(META.ACC)
        largest = tl.maximum(largest, tl.max(tl.abs(wide), axis=1))
    size = size_of(largest)
    again = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, STEP):
        wide = load_tile(tile, start + tl.arange(0, STEP), META).to(META.ACC)
        part = wide / size[:, None]
        again += tl.sum(part * part, axis=1)
    return square_root(again, META.ACC) * size


@triton.jit
def pixel_lengths(squared, tile, META: tl.constexpr):
    """Lengths [BLOCK_P] of a tile of pixels from their squares."""
    length = tl.sqrt(squared)
    doubtful = out_of_range(squared, META.ACC) & inside(tile)
    if tl.max(doubtful.to(tl.int32), axis=0) > 0:
        length = tl.where(doubtful, one_by_one(mended_lengths(tile, META), META), length)
    return length


@triton.jit
def leave_lengths(length, tile, prepared, META: tl.constexpr):
    """Lengths [BLOCK_P] of a tile of pixels stored for the way back, where there is room."""
    if prepared.lengths is not None and META.SIMILARITY == "cosine":
        tl.store(prepared.lengths + flat(tile), length, mask=inside(tile))


@triton.jit
def row_of(matrix, c, offs_d, META: tl.constexpr):
    """A block of channels [1, BLOCK_D] of one row."""
    return tl.load(matrix + c * META.ROW + offs_d, mask=offs_d < META.ROW, other=0.0)[None, :]


@triton.jit
def distances(squared, tile, matrix, META: tl.constexpr):
    """Distances [BLOCK_P, BLOCK_C] of a tile of pixels to the matrix's rows from their squares."""
    STEP: tl.constexpr = AT_ONCE // META.BLOCK_P
    distance = square_root(squared, META.ACC)
    offs_c = tl.arange(0, META.BLOCK_C)
    there = inside(tile)[:, None] & (offs_c < META.C)[None, :]
    doubtful = out_of_range(squared, META.ACC) & there
    stop = META.D if tl.max(doubtful.to(tl.int32)) > 0 else 0
    largest = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(tile, offs_d, META).to(META.ACC)
        for c in range(META.C):
            reach = tl.max(tl.abs(wide - row_of(matrix, c, offs_d, META)), axis=1)
            reach = tl.where(offs_c[None, :] == c, reach[:, None], 0.0)
            largest = tl.maximum(largest, reach)
    size = size_of(largest)
    again = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(tile, offs_d, META).to(META.ACC)
        for c in range(META.C):
            own = tl.sum(tl.where(offs_c[None, :] == c, size, 0.0), axis=1)
            part = (wide - row_of(matrix, c, offs_d, META)) / own[:, None]
            total = tl.sum(part * part, axis=1)
            again += tl.where(offs_c[None, :] == c, total[:, None], 0.0)
    return tl.where(doubtful, square_root(again, META.ACC) * size, distance)


@triton.jit
def lengths_of(total, squared, tile, matrix, META: tl.constexpr):
    """What `logits_of` divides by: lengths [BLOCK_P] under cosine, distances under euclidean."""
    if META.SIMILARITY == "euclidean":
        return distances(total, tile, matrix, META)
    elif META.SIMILARITY == "cosine":
        return pixel_lengths(one_by_one(squared, META), tile, META)
    else:
        return squared
