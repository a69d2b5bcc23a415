"""Device functions for the logits of a tile of pixels and the way back: (M2) and its gradient.

`prepare` of prototypes.py has written the matrix, [2 or 1, BLOCK_C, ROW], and the table
[3 or 4, BLOCK_C] of scale, offset and share (and the lowest equal class). With q_i = f_i / |f_i|:

    z_ic = scale_c matrix_c . q_i           cosine; |f_i| is 1 in what follows otherwise
    z_ic = scale_c matrix_c . f_i           dot
    z_ic = -scale_c |matrix_c - f_i|        euclidean
"""

import triton
import triton.language as tl

from protocontrast.kernels.lengths import inverse_of
from protocontrast.kernels.operands import load_tile, power_below, split, unit_of


@triton.jit
def waited_for(total):
    """`total` itself, by way of a use for which the compiler must wait until it is computed.

    Where a tile feeds a product and other arithmetic, triton reserves no buffer on sm_90 for a
    product that still runs when the loop goes on, and the next load overwrites what it reads.
    """
    # A factor of 1, which only the last of the compilers knows: it costs no instruction.
    offs_c = tl.arange(0, total.shape[1])
    return total * tl.where(offs_c < total.shape[1], 1.0, 2.0)[None, :].to(total.dtype)


@triton.jit
def add_scores(
    tile, total, squared, matrix_ptr, offs_d,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of channels added to products [BLOCK_P, BLOCK_C] and squared lengths [BLOCK_P]."""
    offs_c = tl.arange(0, BLOCK_C)
    if SIMILARITY == "euclidean":
        wide = tile.to(ACC)
        for c in range(C):
            row = tl.load(matrix_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            gap = wide - row[None, :]
            distance = tl.sum(gap * gap, axis=1)
            total += tl.where(offs_c[None, :] == c, distance[:, None], 0.0)
    else:
        if SIMILARITY == "cosine":
            wide = tile.to(ACC)
            squared += tl.sum(wide * wide, axis=1)
        columns = matrix_ptr + offs_d[:, None] + offs_c[None, :] * ROW
        mask = offs_d[:, None] < ROW
        upper = tl.load(columns, mask=mask, other=0.0)  # [BLOCK_D, BLOCK_C]
        if OPERANDS == "wide":
            total = tl.dot(tile.to(ACC), upper, total, input_precision=PRECISION, out_dtype=ACC)
        else:
            total = tl.dot(tile, upper, total, input_precision=PRECISION, out_dtype=ACC)
            if OPERANDS == "split":
                lower = tl.load(columns + BLOCK_C * ROW, mask=mask, other=0.0)
                total = tl.dot(tile, lower, total, input_precision=PRECISION, out_dtype=ACC)
        if SIMILARITY == "cosine":
            total = waited_for(total)
    return total, squared


@triton.jit
def read_scores(
    image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Products and squared lengths of a tile of pixels over all channels."""
    total = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    squared = tl.zeros([BLOCK_P], dtype=ACC)
    for start in range(0, D, BLOCK_D):
        offs_d = start + tl.arange(0, BLOCK_D)
        tile = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D)
        total, squared = add_scores(
            tile, total, squared, matrix_ptr, offs_d,
            SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
        )  # fmt: skip
    return total, squared


@triton.jit
def logits_of(total, length, scale, SIMILARITY: tl.constexpr, ACC: tl.constexpr):
    """Logits [BLOCK_P, BLOCK_C] before the absent classes' offset, and d z / d product.

    `length` is that of `lengths_of`.
    The second is the inverse length [BLOCK_P, 1] under cosine (0 where the length is 0), the
    inverse distance [BLOCK_P, BLOCK_C] (0 at distance 0) under euclidean, and 1 for dot.
    """
    if SIMILARITY == "euclidean":
        return length * -scale[None, :], inverse_of(length)
    elif SIMILARITY == "cosine":
        inverse = inverse_of(length)[:, None]
        return total * scale[None, :] * inverse, inverse
    else:
        return total * scale[None, :], tl.full([1, 1], 1.0, ACC)


@triton.jit
def to_features(
    tile, grad_logits, radial, inverse, matrix_ptr, offs_d,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient [BLOCK_P, BLOCK_D] of a tile from that of products, [BLOCK_P, BLOCK_C].

    Under cosine `radial` [BLOCK_P] is what to take off along the pixel's direction, which is the
    tile times `inverse` [BLOCK_P, 1].
    """
    offs_c = tl.arange(0, BLOCK_C)
    if SIMILARITY == "euclidean":
        wide = tile.to(ACC)
        gradient = tl.zeros(wide.shape, dtype=ACC)
        for c in range(C):
            row = tl.load(matrix_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            column = tl.sum(tl.where(offs_c[None, :] == c, grad_logits, 0.0), axis=1)
            # Differences: M' a - f sum_c a would cancel where a pixel is close to a prototype.
            gradient += column[:, None] * (row[None, :] - wide)
    else:
        rows = matrix_ptr + offs_c[:, None] * ROW + offs_d[None, :]
        mask = offs_d[None, :] < ROW
        upper = tl.load(rows, mask=mask, other=0.0)  # [BLOCK_C, BLOCK_D]
        if OPERANDS == "wide":
            gradient = tl.dot(grad_logits, upper, input_precision=PRECISION, out_dtype=ACC)
        else:
            unit = unit_of(grad_logits, tile.dtype)
            high, low = split(grad_logits / unit, tile.dtype)
            gradient = tl.dot(high, upper, input_precision=PRECISION, out_dtype=ACC)
            if OPERANDS == "split":
                lower = tl.load(rows + BLOCK_C * ROW, mask=mask, other=0.0)
                gradient = tl.dot(high, lower, gradient, input_precision=PRECISION, out_dtype=ACC)
                gradient = tl.dot(low, upper, gradient, input_precision=PRECISION, out_dtype=ACC)
            gradient = gradient * unit
        if SIMILARITY == "cosine":
            gradient -= tile.to(ACC) * inverse * radial[:, None]
    return gradient


@triton.jit
def to_rows(
    tile, grad_logits, matrix_ptr, offs_d,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sum_i slope_ic f_i, [BLOCK_D, BLOCK_C]; under euclidean sum_i slope_ic (f_i - matrix_c)."""
    if SIMILARITY == "euclidean":
        offs_c = tl.arange(0, BLOCK_C)
        wide = tile.to(ACC)
        total = tl.zeros([wide.shape[1], BLOCK_C], dtype=ACC)
        for c in range(C):
            row = tl.load(matrix_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            column = tl.sum(tl.where(offs_c[None, :] == c, grad_logits, 0.0), axis=1)
            pulled = tl.sum(column[:, None] * (wide - row[None, :]), axis=0)
            total += tl.where(offs_c[None, :] == c, pulled[:, None], 0.0)
        return total
    else:
        return weighted_sum(tile, grad_logits, OPERANDS, PRECISION, ACC)


@triton.jit
def in_float16(tile):
    """A float32 tile of float16 numbers times powers of two, over one for all, in float16; that."""
    unit = power_below(tl.max(tl.abs(tile)))
    return (tile / unit).to(tl.float16), unit


@triton.jit
def weighted_sum(
    tile, weight,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, LIFTED: tl.constexpr = True,
):  # fmt: skip
    """sum_i weight_ic f_i, [BLOCK_D, BLOCK_C], of a tile [BLOCK_P, BLOCK_D].

    LIFTED: pixels' weights may differ as much as one over their lengths.
    """
    if OPERANDS == "wide":
        across = tl.trans(tile.to(ACC))
        return tl.dot(across, weight, input_precision=PRECISION, out_dtype=ACC)
    else:
        unit = 1.0
        if tile.dtype == tl.float16:
            if LIFTED:
                # What a short pixel's weight is divided by, it is multiplied with.
                size = unit_of(weight, tl.float16)
                weight = weight / size
                tile, unit = in_float16(tile.to(tl.float32) * size)
            else:
                unit = power_below(tl.max(tl.abs(weight)))
                weight = weight / unit
        across = tl.trans(tile)
        high, low = split(weight, tile.dtype)
        total = tl.dot(across, high, input_precision=PRECISION, out_dtype=ACC)
        if OPERANDS == "split":
            total = tl.dot(across, low, total, input_precision=PRECISION, out_dtype=ACC)
        return total * unit
