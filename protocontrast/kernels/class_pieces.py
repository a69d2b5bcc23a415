"""The contrast of more than 128 classes, in pieces that pad less: 150 as 128 and 32, not 256.

A program keeps the prototypes in shared memory and walks tiles of all channels. That leaves no room
for soft targets, whose threads are others than those of the logits.
"""

import triton
import triton.language as tl

from protocontrast.kernels.lengths import inverse_of, leave_lengths, lengths_of
from protocontrast.kernels.meta import Meta, named
from protocontrast.kernels.operands import dot
from protocontrast.kernels.targets import own_class
from protocontrast.kernels.tiles import from_channel, load_channels


@triton.constexpr_function
def widths_of(meta: Meta) -> list[int]:
    """Powers of two, the widest first, that add up to the classes and their padding."""
    left, found = -(-int(named(meta).C) // 32) * 32, []
    while left:
        found.append(min(128, 1 << left.bit_length() - 1))
        left -= found[-1]
    return found


@triton.constexpr_function
def taken_in_pieces(meta: Meta) -> bool:
    """Whether a program that keeps prototypes has them in pieces."""
    meta = named(meta)
    return meta.PROGRAMS > 0 and meta.BLOCK_C > 128


@triton.constexpr_function
def piece_count(meta: Meta) -> int:
    """Into how many the classes part."""
    return len(widths_of(meta))


@triton.constexpr_function
def piece_start(meta: Meta, piece: int) -> int:
    """Its first class."""
    return sum(widths_of(meta)[: int(piece)])


@triton.constexpr_function
def piece_width(meta: Meta, piece: int) -> int:
    """How many classes it has, padding included."""
    return widths_of(meta)[int(piece)]


@triton.jit
def classes_in(piece: tl.constexpr, META: tl.constexpr):
    """The classes of a piece."""
    return piece_start(META, piece) + tl.arange(0, piece_width(META, piece))


@triton.jit
def kept_pieces(matrix, META: tl.constexpr):
    """What a program holds of the matrix: by blocks of channels, halves and pieces."""
    HALVES: tl.constexpr = 2 if META.OPERANDS == "split" else 1
    factors = ()
    for start in tl.static_range(0, META.D, META.BLOCK_D):
        offs_d = start + tl.arange(0, META.BLOCK_D)
        for half in tl.static_range(HALVES):
            for piece in tl.static_range(piece_count(META)):
                rows = classes_in(piece, META)
                rows_of_half = matrix + half * META.BLOCK_C * META.ROW
                where = rows_of_half + rows[None, :] * META.ROW + offs_d[:, None]
                mask = (offs_d < META.ROW)[:, None] & (rows < META.C)[None, :]
                factors = factors + (tl.load(where, mask=mask, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    return factors


@triton.jit
def logits_in_pieces(tile, prepared, factors, META: tl.constexpr):
    """Logits of a tile with what absent classes add, [BLOCK_P, width] of each piece."""
    PIECES: tl.constexpr = piece_count(META)
    HALVES: tl.constexpr = 2 if META.OPERANDS == "split" else 1
    totals = ()
    for piece in tl.static_range(PIECES):
        nothing = tl.zeros([META.BLOCK_P, piece_width(META, piece)], dtype=META.ACC)
        totals = totals + (nothing,)  # type: ignore[assignment]  # noqa: RUF005
    squares = tl.zeros([META.BLOCK_P, META.BLOCK_D], dtype=META.ACC)
    for part in tl.static_range((META.D + META.BLOCK_D - 1) // META.BLOCK_D):
        here, offs_d = from_channel(tile.features, part * META.BLOCK_D), tl.arange(0, META.BLOCK_D)
        block = load_channels(here, tile, offs_d, META.D - part * META.BLOCK_D)
        if META.OPERANDS == "wide":
            block = block.to(META.ACC)
        if META.SIMILARITY == "cosine":
            # Summed across threads once, at the end.
            wide = block.to(META.ACC)
            squares += wide * wide
        for half in tl.static_range(HALVES):
            added = ()
            for piece in tl.static_range(PIECES):
                factor = factors[(part * HALVES + half) * PIECES + piece]
                added = added + (dot(block, factor, totals[piece], META),)  # type: ignore[assignment]  # noqa: RUF005
            totals = added
    squared = tl.sum(squares, axis=1)
    length = lengths_of(squared, squared, tile, None, META)
    leave_lengths(length, tile, prepared, META)
    logits = ()
    for piece in tl.static_range(PIECES):
        column = prepared.table + classes_in(piece, META)
        if META.SIMILARITY == "cosine":
            # That of all classes: as one number it takes fewer registers.
            scale = (tl.load(prepared.table) * inverse_of(length))[:, None]
        else:
            scale = tl.load(column)[None, :]
        scaled = totals[piece] * scale + tl.load(column + META.BLOCK_C)[None, :]
        logits = logits + (scaled,)  # type: ignore[assignment]  # noqa: RUF005
    return logits


@triton.jit
def normaliser_of_pieces(logits, META: tl.constexpr):
    """The log-sum-exp [BLOCK_P] of logits, against the largest."""
    peak = tl.max(logits[0], axis=1)
    for piece in tl.static_range(1, piece_count(META)):
        peak = tl.maximum(peak, tl.max(logits[piece], axis=1))
    total = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for piece in tl.static_range(piece_count(META)):
        total += tl.sum(tl.exp(logits[piece] - peak[:, None]), axis=1)
    return peak + tl.log(total)


@triton.jit
def pull_of_pieces(targets, tile, table, scores, META: tl.constexpr):
    """What `scores` pull a pixel of a hard label with, and its weight, both [BLOCK_P]."""
    label, weight = own_class(targets, tile, table + 2 * META.BLOCK_C, META)
    pull = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for piece in tl.static_range(piece_count(META)):
        own = label[:, None] == classes_in(piece, META)[None, :]
        pull += tl.sum(tl.where(own, scores[piece], 0.0), axis=1)
    return weight * pull, weight
