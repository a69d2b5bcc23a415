"""Device functions for lengths of pixels and distances whose squares may leave the dtype's range.

Squares are summed as they are, beside the products. Where a sum of a tile is out of a safe range,
the tile is read again, twice: for the largest magnitude, and for squares of what is divided by it.
"""

import triton
import triton.language as tl

from protocontrast.kernels.operands import load_tile, square_root

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
def pixel_lengths(
    squared, image_ptr, stride_d, stride_p, offs_p, pixels,
    ACC: tl.constexpr, D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Lengths [BLOCK_P] of a tile of pixels from their squares."""
    STEP: tl.constexpr = AT_ONCE // BLOCK_P
    length = square_root(squared, ACC)
    doubtful = out_of_range(squared, ACC) & (offs_p < pixels)
    # Loops of no step, rather than a branch, where nothing is in doubt.
    stop = D if tl.max(doubtful[:, None].to(tl.int32)) > 0 else 0
    largest = tl.zeros([BLOCK_P], dtype=ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D).to(ACC)
        largest = tl.maximum(largest, tl.max(tl.abs(wide), axis=1))
    size = size_of(largest)
    again = tl.zeros([BLOCK_P], dtype=ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D).to(ACC)
        part = wide / size[:, None]
        again += tl.sum(part * part, axis=1)
    return tl.where(doubtful, square_root(again, ACC) * size, length)


@triton.jit
def distances(
    squared, image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr,
    ACC: tl.constexpr, C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Distances [BLOCK_P, BLOCK_C] of a tile of pixels to the matrix's rows from their squares."""
    STEP: tl.constexpr = AT_ONCE // BLOCK_P
    distance = square_root(squared, ACC)
    offs_c = tl.arange(0, BLOCK_C)
    there = (offs_p < pixels)[:, None] & (offs_c < C)[None, :]
    doubtful = out_of_range(squared, ACC) & there
    stop = D if tl.max(doubtful.to(tl.int32)) > 0 else 0
    largest = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D).to(ACC)
        for c in range(C):
            row = tl.load(matrix_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            reach = tl.max(tl.abs(wide - row[None, :]), axis=1)
            reach = tl.where(offs_c[None, :] == c, reach[:, None], 0.0)
            largest = tl.maximum(largest, reach)
    size = size_of(largest)
    again = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        wide = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D).to(ACC)
        for c in range(C):
            row = tl.load(matrix_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            own = tl.sum(tl.where(offs_c[None, :] == c, size, 0.0), axis=1)
            part = (wide - row[None, :]) / own[:, None]
            total = tl.sum(part * part, axis=1)
            again += tl.where(offs_c[None, :] == c, total[:, None], 0.0)
    return tl.where(doubtful, square_root(again, ACC) * size, distance)


@triton.jit
def lengths_of(
    total, squared, image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr,
    SIMILARITY: tl.constexpr, ACC: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    ROW: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """What `logits_of` divides by: lengths [BLOCK_P] under cosine, distances under euclidean."""
    if SIMILARITY == "euclidean":
        return distances(
            total, image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr,
            ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
    elif SIMILARITY == "cosine":
        return pixel_lengths(
            squared, image_ptr, stride_d, stride_p, offs_p, pixels, ACC, D, BLOCK_P
        )
    else:
        return squared
