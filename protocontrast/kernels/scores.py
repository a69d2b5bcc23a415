"""Device functions for the logits of a tile of pixels and the way back: (M2) and its gradient.

`prepare` of prototypes.py has written the matrix, [2 or 1, BLOCK_C, ROW], and the table
[3 or 4, BLOCK_C] of scale, offset and share (and the lowest equal class). With q_i = f_i / |f_i|:

    z_ic = scale_c matrix_c . q_i           cosine; |f_i| is 1 in what follows otherwise
    z_ic = scale_c matrix_c . f_i           dot
    z_ic = -scale_c |matrix_c - f_i|        euclidean
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from protocontrast.kernels.lengths import inverse_of, lengths_of, row_of
from protocontrast.kernels.meta import Meta, named
from protocontrast.kernels.operands import dot, power_below, split, times_pixel, unit_of
from protocontrast.kernels.tiles import from_channel, load_channels, load_tile


class Classes(NamedTuple):
    """Columns of the table, [BLOCK_C]: scale, what an absent class adds to its logit, weight."""

    scale: Any
    offset: Any
    share: Any


class Kept(NamedTuple):
    """Columns of the table, and the matrix's blocks where a program walks tiles of all channels."""

    classes: Any
    factors: Any


@triton.jit
def classes_of(table, META: tl.constexpr):
    """The columns that all tables have."""
    column = table + tl.arange(0, META.BLOCK_C)
    scale, offset = tl.load(column), tl.load(column + META.BLOCK_C)
    return Classes(scale, offset, tl.load(column + 2 * META.BLOCK_C))


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
def add_scores(block, total, squared, matrix, offs_d, META: tl.constexpr):
    """A block of channels added to products [BLOCK_P, BLOCK_C] and squared lengths [BLOCK_P]."""
    offs_c = tl.arange(0, META.BLOCK_C)
    if META.SIMILARITY == "euclidean":
        wide = block.to(META.ACC)
        for c in range(META.C):
            gap = wide - row_of(matrix, c, offs_d, META)
            distance = tl.sum(gap * gap, axis=1)
            total += tl.where(offs_c[None, :] == c, distance[:, None], 0.0)
    else:
        if META.SIMILARITY == "cosine":
            wide = block.to(META.ACC)
            squared += tl.sum(wide * wide, axis=1)
        columns = matrix + offs_d[:, None] + offs_c[None, :] * META.ROW
        mask = offs_d[:, None] < META.ROW
        upper = tl.load(columns, mask=mask, other=0.0)  # [BLOCK_D, BLOCK_C]
        if META.OPERANDS == "wide":
            total = dot(block.to(META.ACC), upper, total, META)
        else:
            total = dot(block, upper, total, META)
            if META.OPERANDS == "split":
                lower = tl.load(columns + META.BLOCK_C * META.ROW, mask=mask, other=0.0)
                total = dot(block, lower, total, META)
        if META.SIMILARITY == "cosine":
            total = waited_for(total)
    return total, squared


@triton.constexpr_function
def side_by_side_in(meta: Meta) -> bool:
    """Whether both halves of the matrix are one factor; more classes would take all registers."""
    meta = named(meta)
    return meta.OPERANDS == "split" and meta.BLOCK_C <= 64


@triton.jit
def factor_of(matrix, offs_d, META: tl.constexpr):
    """A block of channels of the matrix, or of both its halves, [BLOCK_D, 1 or 2 BLOCK_C]."""
    HALVES: tl.constexpr = 2 if side_by_side_in(META) else 1
    rows = tl.arange(0, HALVES * META.BLOCK_C)
    # What pads the classes is not read.
    mask = (offs_d < META.ROW)[:, None] & (rows % META.BLOCK_C < META.C)[None, :]
    return tl.load(matrix + offs_d[:, None] + rows[None, :] * META.ROW, mask=mask, other=0.0)


@triton.jit
def kept_of(prepared, META: tl.constexpr):
    """What a program holds of prepared prototypes before its first tile."""
    factors = ()
    if META.PROGRAMS > 0 and META.SIMILARITY != "euclidean":
        for start in tl.static_range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            factors = factors + (factor_of(prepared.matrix, offs_d, META),)  # type: ignore[assignment]  # noqa: RUF005
    return Kept(classes_of(prepared.table, META), factors)


@triton.jit
def load_blocks(tile, META: tl.constexpr):
    """All channels of a tile of pixels, block by block."""
    blocks = ()
    for start in tl.static_range(0, META.D, META.BLOCK_D):
        here, offs_d = from_channel(tile.features, start), tl.arange(0, META.BLOCK_D)
        blocks = blocks + (load_channels(here, tile, offs_d, META.D - start),)  # type: ignore[assignment]  # noqa: RUF005
    return blocks


@triton.jit
def products_of(block, factor, total, META: tl.constexpr):
    """`total`, or nothing where that is None, and the products of a tile with a factor."""
    if META.OPERANDS == "wide":
        return dot(block.to(META.ACC), factor, total, META)
    else:
        return dot(block, factor, total, META)


@triton.jit
def without_halves(total, META: tl.constexpr):
    """Products [BLOCK_P, BLOCK_C] from those with either half."""
    if side_by_side_in(META):
        return tl.sum(tl.reshape(total, [META.BLOCK_P, 2, META.BLOCK_C]), axis=1)
    else:
        return total


@triton.jit
def read_distances(tile, matrix, META: tl.constexpr):
    """Squared distances [BLOCK_P, BLOCK_C] of a tile of pixels."""
    total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        offs_d = start + tl.arange(0, META.BLOCK_D)
        block = load_tile(tile, offs_d, META)
        total, squared = add_scores(block, total, squared, matrix, offs_d, META)
    return total


@triton.jit
def squares_of(blocks, META: tl.constexpr):
    """Squared lengths [BLOCK_P] of a tile."""
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for part in tl.static_range((META.D + META.BLOCK_D - 1) // META.BLOCK_D):
        wide = blocks[part].to(META.ACC)
        squared += tl.sum(wide * wide, axis=1)
    return squared


@triton.jit
def kept_scores(blocks, tile, factors, META: tl.constexpr):
    """`read_scores` of a tile and of prototypes that a program has at hand."""
    PARTS: tl.constexpr = (META.D + META.BLOCK_D - 1) // META.BLOCK_D
    total = products_of(blocks[0], factors[0], None, META)
    for part in tl.static_range(1, PARTS):
        total = products_of(blocks[part], factors[part], total, META)
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    if META.SIMILARITY == "cosine":
        squared = squares_of(blocks, META)
    length = lengths_of(squared, squared, tile, None, META)
    return without_halves(total, META), length


@triton.jit
def read_scores(tile, matrix, META: tl.constexpr):
    """Products of a tile of pixels over all channels, and what `logits_of` divides by."""
    if META.SIMILARITY == "euclidean":
        total = read_distances(tile, matrix, META)
        length = lengths_of(total, total, tile, matrix, META)
    else:
        HALVES: tl.constexpr = 2 if side_by_side_in(META) else 1
        total = tl.zeros([META.BLOCK_P, HALVES * META.BLOCK_C], dtype=META.ACC)
        # Summed across threads once, at the end.
        squares = tl.zeros([META.BLOCK_P, META.BLOCK_D], dtype=META.ACC)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            block = load_tile(tile, offs_d, META)
            if META.SIMILARITY == "cosine":
                wide = block.to(META.ACC)
                squares += wide * wide
            total = products_of(block, factor_of(matrix, offs_d, META), total, META)
            if META.OPERANDS == "split" and HALVES == 1:
                lower = factor_of(matrix + META.BLOCK_C * META.ROW, offs_d, META)
                total = products_of(block, lower, total, META)
            if META.SIMILARITY == "cosine":
                total = waited_for(total)
        squared = tl.sum(squares, axis=1)
        length = lengths_of(squared, squared, tile, matrix, META)
        total = without_halves(total, META)
    return total, length


@triton.jit
def scores_of(tile, prepared, kept, META: tl.constexpr):
    """`read_scores`, by the prototypes that a program keeps where it does."""
    if META.PROGRAMS > 0 and META.SIMILARITY != "euclidean":
        return kept_scores(load_blocks(tile, META), tile, kept.factors, META)
    else:
        return read_scores(tile, prepared.matrix, META)


@triton.jit
def logits_of(total, length, scale, META: tl.constexpr):
    """Logits [BLOCK_P, BLOCK_C] before the absent classes' offset, and d z / d product.

    `length` is that of `lengths_of`.
    The second is the inverse length [BLOCK_P, 1] under cosine (0 where the length is 0), the
    inverse distance [BLOCK_P, BLOCK_C] (0 at distance 0) under euclidean, and 1 for dot.
    """
    if META.SIMILARITY == "euclidean":
        return length * -scale[None, :], inverse_of(length)
    elif META.SIMILARITY == "cosine":
        inverse = inverse_of(length)[:, None]
        return total * scale[None, :] * inverse, inverse
    else:
        return total * scale[None, :], tl.full([1, 1], 1.0, META.ACC)


@triton.jit
def to_features(block, grad_logits, radial, inverse, matrix, offs_d, META: tl.constexpr):
    """Gradient [BLOCK_P, BLOCK_D] of a block of channels from that of products, [BLOCK_P, BLOCK_C].

    Under cosine `radial` [BLOCK_P] is what to take off along the pixel's direction, which is the
    block times `inverse` [BLOCK_P, 1].
    """
    offs_c = tl.arange(0, META.BLOCK_C)
    if META.SIMILARITY == "euclidean":
        wide = block.to(META.ACC)
        gradient = tl.zeros(wide.shape, dtype=META.ACC)
        for c in range(META.C):
            column = tl.sum(tl.where(offs_c[None, :] == c, grad_logits, 0.0), axis=1)
            # Differences: M' a - f sum_c a would cancel where a pixel is close to a prototype.
            gradient += column[:, None] * (row_of(matrix, c, offs_d, META) - wide)
    else:
        rows = matrix + offs_c[:, None] * META.ROW + offs_d[None, :]
        # What pads the classes is not read.
        mask = (offs_d < META.ROW)[None, :] & (offs_c < META.C)[:, None]
        upper = tl.load(rows, mask=mask, other=0.0)  # [BLOCK_C, BLOCK_D]
        if META.OPERANDS == "wide":
            gradient = dot(grad_logits, upper, None, META)
        else:
            unit = unit_of(grad_logits, block.dtype)
            high, low = split(grad_logits / unit, block.dtype)
            gradient = dot(high, upper, None, META)
            if META.OPERANDS == "split":
                lower = tl.load(rows + META.BLOCK_C * META.ROW, mask=mask, other=0.0)
                gradient = dot(high, lower, gradient, META)
                gradient = dot(low, upper, gradient, META)
            gradient = gradient * unit
        gradient = across(gradient, block, radial, inverse, META)
    return gradient


@triton.jit
def across(gradient, block, radial, inverse, META: tl.constexpr):
    """A gradient without what lies along the pixel itself, under cosine."""
    if META.SIMILARITY == "cosine":
        gradient -= block.to(META.ACC) * inverse * radial[:, None]
    return gradient


@triton.jit
def side_by_side(left, right, META: tl.constexpr):
    """[BLOCK_P, 2 BLOCK_C]: one, then the other."""
    both = tl.permute(tl.join(left, right), (0, 2, 1))
    return tl.reshape(both, [META.BLOCK_P, 2 * META.BLOCK_C])


@triton.jit
def to_rows(block, grad_logits, matrix, offs_d, META: tl.constexpr):
    """sum_i slope_ic f_i, [BLOCK_D, BLOCK_C]; under euclidean sum_i slope_ic (f_i - matrix_c)."""
    if META.SIMILARITY == "euclidean":
        offs_c = tl.arange(0, META.BLOCK_C)
        wide = block.to(META.ACC)
        total = tl.zeros([wide.shape[1], META.BLOCK_C], dtype=META.ACC)
        for c in range(META.C):
            column = tl.sum(tl.where(offs_c[None, :] == c, grad_logits, 0.0), axis=1)
            gap = wide - row_of(matrix, c, offs_d, META)
            pulled = tl.sum(column[:, None] * gap, axis=0)
            total += tl.where(offs_c[None, :] == c, pulled[:, None], 0.0)
        return total
    else:
        return weighted_sum(block, grad_logits, META)


@triton.jit
def in_float16(block):
    """A float32 block of float16 numbers times powers of two in float16, and over which power."""
    unit = power_below(tl.max(tl.abs(block)))
    return (block / unit).to(tl.float16), unit


@triton.jit
def weighted_sum(block, weight, META: tl.constexpr):
    """sum_i weight_ic f_i, [BLOCK_D, BLOCK_C], of a block [BLOCK_P, BLOCK_D].

    Pixels' weights may differ as much as one over their lengths.
    """
    if META.OPERANDS == "wide":
        return dot(tl.trans(block.to(META.ACC)), weight, None, META)
    else:
        unit = 1.0
        if block.dtype == tl.float16:
            # What a short pixel's weight is divided by, it is multiplied with.
            largest = tl.max(tl.abs(weight), axis=1)[:, None]
            size = power_below(largest)
            weight = weight / size
            block, unit = in_float16(block.to(tl.float32) * times_pixel(size, largest))
        across = tl.trans(block)
        high, low = split(weight, block.dtype)
        total = dot(across, high, None, META)
        if META.OPERANDS == "split":
            total = dot(across, low, total, META)
        return total * unit
