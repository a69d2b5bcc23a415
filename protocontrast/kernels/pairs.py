"""What the kernels of pairs share: products of two sides' rows, who meets whom, the launch.

A program has a block of one side's rows and a span of the other's, which it walks in tiles.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall, accumulation_dtype
from protocontrast.kernels.configs import LARGEST_TILE
from protocontrast.kernels.launch import Launch, plan, run, tile_count
from protocontrast.kernels.operands import dot, square_root
from protocontrast.kernels.tiles import Map, Tile, inside, load_tile

PROGRAMS = 1024
"""Spans are as long as they can be while so many blocks of 64 rows are at work."""
FAR = 50
"""Rows of 2 to this power are compared as they are; one that lies farther must not hide others."""


class PerRow(NamedTuple):
    """What products of both sides' rows are multiplied by; labels of anchors, and of keys as
    positives and as negatives."""

    scale: Any
    other_scale: Any
    own: Any
    plus: Any
    minus: Any


@triton.jit
def place(rows, META: tl.constexpr):
    """A program's block of rows, its span of others (int64), and the first of these."""
    blocks = tl.cdiv(rows.pixels, META.BLOCK_P)
    span = (tl.program_id(0) // blocks).to(tl.int64)
    return tl.program_id(0) % blocks, span, (span * META.SPAN).to(tl.int32)


@triton.jit
def rows_at(rows, first, META: tl.constexpr):
    """A tile of a side's rows."""
    return Tile(rows, 0, first + tl.arange(0, META.BLOCK_P))


@triton.jit
def load_rows(pointer, tile, other):
    """[BLOCK_P] of what a tile's rows have one of, `other` outside."""
    return tl.load(pointer + tile.offs, mask=inside(tile), other=other)


@triton.jit
def products(left, right, total, META: tl.constexpr):
    """A block of channels added to the products [BLOCK_O, BLOCK_R] of two tiles."""
    if META.OPERANDS == "wide":
        left, right = left.to(META.ACC), right.to(META.ACC)
    return dot(left, tl.trans(right), total, META)


@triton.jit
def load_channel(tile, channel, META: tl.constexpr):
    """One channel of a tile, [BLOCK_P]."""
    where = tile.features.pointer + tile.offs.to(tl.int64) * tile.features.stride_p
    where += channel * tile.features.stride_d
    return tl.load(where, mask=inside(tile), other=0.0).to(META.ACC)


@triton.jit
def gaps(left, right, channel, META: tl.constexpr):
    """A channel of a tile of others less that of a block of rows, [BLOCK_O, BLOCK_R]."""
    return load_channel(left, channel, META)[:, None] - load_channel(right, channel, META)[None, :]


@triton.jit
def read_products(left, right, META: tl.constexpr):
    """Products of a tile of others and a block of rows over all channels, or minus distances."""
    total = tl.zeros([META.BLOCK_P, META.BLOCK_P], dtype=META.ACC)
    if META.SIMILARITY == "euclidean":
        # Differences: of squares and products no digit is left where rows are close.
        for channel in range(META.D):
            gap = gaps(left, right, channel, META)
            total += gap * gap
        return -square_root(total, META.ACC)
    else:
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            of_left, of_right = load_tile(left, offs_d, META), load_tile(right, offs_d, META)
            total = products(of_left, of_right, total, META)
        return total


@triton.jit
def roles(own, plus, minus, anchor, key, META: tl.constexpr):
    """Which keys are positives of an anchor, and which stand in its denominator.

    Labels and places of anchors and of keys, one of them a column and the other a row.
    """
    positive = (own == plus) & (own != META.IGNORE_INDEX)
    if META.EXCLUDE_SELF:
        positive = positive & (anchor != key)
    negative = (own != minus) & (own != META.IGNORE_INDEX) & (minus != META.IGNORE_INDEX)
    if META.ALL:
        negative = negative | positive
    return positive, negative


@triton.jit
def scored_pairs(anchors, keys, scale, per_row, META: tl.constexpr):
    """Scores of a tile of keys and a block of anchors, [BLOCK_O, BLOCK_R], and their roles."""
    own = load_rows(per_row.own, anchors, META.IGNORE_INDEX)[None, :]
    plus = load_rows(per_row.plus, keys, META.IGNORE_INDEX)[:, None]
    minus = load_rows(per_row.minus, keys, META.IGNORE_INDEX)[:, None]
    factor = load_rows(per_row.other_scale, keys, 0.0)
    scores = read_products(keys, anchors, META)
    scores *= factor[:, None] * scale[None, :]
    found = roles(own, plus, minus, anchors.offs[None, :], keys.offs[:, None], META)
    return scores, found[0], found[1]


class Side(NamedTuple):
    """One side's rows with their inverse lengths, 1 under dot; 1/tau is in the anchors' scale.

    Under cosine they are the given rows over their `size` (n, 1), under euclidean over one `size`
    of both sides.
    """

    rows: Tensor
    inverse_length: Tensor
    scale: Tensor
    size: Tensor | None


def side_of(rows: Tensor, kind: str, temperature: float) -> Side:
    """Rows and what their products are multiplied by; a row of zero length has 0."""
    dtype, size = accumulation_dtype(rows), None
    if kind == "cosine":
        # Products of two rows, and not only squares, would leave the range of exponents.
        largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True, dtype=dtype)
        size = torch.exp2((torch.frexp(largest).exponent - 1).to(dtype)).to(rows.dtype)
        rows = rows / size
        length = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
        inverse = torch.where(length == 0, 0, 1 / length)
    else:
        inverse = rows.new_ones(len(rows), dtype=dtype)
    return Side(rows, inverse, inverse / temperature, size)


def sides_of(call: PairRolesCall) -> tuple[Side, Side]:
    """Both sides; in distances over a power of two by which squares stay numbers, 1 if they may."""
    anchors, keys, kind = call.anchors, call.keys, call.similarity
    left, right = side_of(anchors, kind, call.temperature), side_of(keys, kind, 1.0)
    if kind != "euclidean":
        return left, right
    dtype = left.scale.dtype
    largest = torch.ones((), dtype=dtype, device=anchors.device)
    given = [rows for rows in (anchors, keys) if rows.numel()]
    if given:
        # What takes no part may be anything.
        finite = [torch.where(rows.isfinite(), rows, 0).abs().amax() for rows in given]
        found = torch.stack(finite).amax().to(dtype)
        largest = torch.where(found == 0, 1, found)
    exponent = torch.frexp(largest).exponent - 1
    size = torch.exp2(torch.maximum(exponent - FAR, exponent.clamp_max(0)).to(dtype))
    near = [rows / size.to(rows.dtype) for rows in (anchors, keys)]
    return (
        left._replace(rows=near[0], scale=left.scale * size, size=size),
        right._replace(rows=near[1], size=size),
    )


def span_of_pairs(rows: int, others: int, slots: int | None = None) -> int:
    """Others over which one program sums, a power of two; shapes alone decide.

    As many spans as keep `PROGRAMS` at work, and no more than `slots`.
    """
    most = max(1, PROGRAMS // tile_count(rows, 64))
    most = most if slots is None else min(most, max(1, slots))
    span = LARGEST_TILE
    while tile_count(others, span) > most:
        span *= 2
    return span


def pair_launch(
    kernel: Any,
    row: str,
    sides: tuple[Side, Side],
    call: PairRolesCall,
    span: int,
    arguments: tuple[Any, ...],
    of_keys: bool = False,
) -> None:
    """Start a kernel of the `row` of tile sizes for every block of rows and span of others.

    It takes rows, others, `PerRow`, then `arguments` of its own.
    """
    maps = (
        Map(each.rows, 0, each.rows.stride(1), each.rows.stride(0), len(each.rows))
        for each in sides
    )
    rows, others = (len(each.rows) for each in sides)
    meta, how = plan(
        row, sides[0].rows, 1,
        SIMILARITY=call.similarity, ALL=call.all_in_denominator, EXCLUDE_SELF=call.exclude_self,
        IGNORE_INDEX=call.ignore_index, OF_KEYS=of_keys, SPAN=span,
    )  # fmt: skip
    programs = tile_count(rows, meta.BLOCK_P) * tile_count(others, span)
    labels = call.anchor_labels, call.positive_labels, call.negative_labels
    scales = (each.scale for each in sides)
    per_row = PerRow(*scales, *(each.contiguous() for each in labels))
    arguments = *maps, per_row, *arguments
    run(Launch(kernel, programs, arguments, meta, how), sides[0].rows)
