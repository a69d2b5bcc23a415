"""What the kernels of pairs share: products of two sides' rows, who meets whom, the launch.

A program has a block of one side's rows and a span of the other's, which it walks in tiles.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import PairRolesCall
from protocontrast.kernels.configs import LARGEST_TILE, configuration
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    arithmetic,
    family,
    options,
    run,
    tile_count,
)
from protocontrast.kernels.operands import load_tile, square_root

PROGRAMS = 1024
"""Spans are as long as they can be while so many blocks of 64 rows are at work."""


@triton.jit
def place(rows, SPAN: tl.constexpr, BLOCK_P: tl.constexpr):
    """A program's block of rows, its span of others (int64), and the first of these."""
    blocks = tl.cdiv(rows, BLOCK_P)
    span = (tl.program_id(0) // blocks).to(tl.int64)
    return tl.program_id(0) % blocks, span, (span * SPAN).to(tl.int32)


@triton.jit
def products(
    left, right, total, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr
):
    """A block of channels added to the products [BLOCK_O, BLOCK_R] of two tiles."""
    if OPERANDS == "wide":
        left, right = left.to(ACC), right.to(ACC)
    return tl.dot(left, tl.trans(right), total, input_precision=PRECISION, out_dtype=ACC)


@triton.jit
def gaps(
    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
    offs_r, offs_o, rows, others, channel, ACC: tl.constexpr,
):  # fmt: skip
    """A channel of a tile of others less that of a block of rows, [BLOCK_O, BLOCK_R]."""
    left = tl.load(
        others_ptr + offs_o.to(tl.int64) * stride_xo + channel * stride_xe,
        mask=offs_o < others,
        other=0.0,
    ).to(ACC)
    right = tl.load(
        rows_ptr + offs_r.to(tl.int64) * stride_xr + channel * stride_xd,
        mask=offs_r < rows,
        other=0.0,
    ).to(ACC)
    return left[:, None] - right[None, :]


@triton.jit
def read_products(
    rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe, offs_r, offs_o, rows, others,
    DISTANCE: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    D: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Products of a tile of others and a block of rows over all channels, or minus distances."""
    total = tl.zeros([BLOCK_P, BLOCK_P], dtype=ACC)
    if DISTANCE:
        # Differences: of squares and products no digit is left where rows are close.
        for channel in range(D):
            gap = gaps(
                rows_ptr, stride_xr, stride_xd, others_ptr, stride_xo, stride_xe,
                offs_r, offs_o, rows, others, channel, ACC,
            )  # fmt: skip
            total += gap * gap
        return -square_root(total, ACC)
    else:
        for start in range(0, D, BLOCK_D):
            offs_d = start + tl.arange(0, BLOCK_D)
            left = load_tile(others_ptr, stride_xe, stride_xo, offs_o, offs_d, others, D)
            right = load_tile(rows_ptr, stride_xd, stride_xr, offs_r, offs_d, rows, D)
            total = products(left, right, total, OPERANDS, PRECISION, ACC)
        return total


@triton.jit
def roles(
    own, plus, minus, anchor, key,
    ALL: tl.constexpr, EXCLUDE_SELF: tl.constexpr, IGNORE_INDEX: tl.constexpr,
):  # fmt: skip
    """Which keys are positives of an anchor, and which stand in its denominator.

    Labels and places of anchors and of keys, one of them a column and the other a row.
    """
    positive = (own == plus) & (own != IGNORE_INDEX)
    if EXCLUDE_SELF:
        positive = positive & (anchor != key)
    negative = (own != minus) & (own != IGNORE_INDEX) & (minus != IGNORE_INDEX)
    if ALL:
        negative = negative | positive
    return positive, negative


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


def labels_of(call: PairRolesCall) -> tuple[Tensor, Tensor, Tensor]:
    """The labels of anchors, and of keys as positives and as negatives."""
    labels = call.anchor_labels, call.positive_labels, call.negative_labels
    return labels[0].contiguous(), labels[1].contiguous(), labels[2].contiguous()


def sides_of(call: PairRolesCall) -> tuple[Side, Side]:
    """Both sides; in distances both over their largest number, whose square may be none."""
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
    size = torch.exp2((torch.frexp(largest).exponent - 1).to(dtype))
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
    side: Side,
    other: Side,
    labels: tuple[Tensor, Tensor, Tensor],
    span: int,
    arguments: dict[str, Any],
    constants: dict[str, Any],
) -> None:
    """Start a kernel of the `row` of tile sizes for every block of rows and span of others."""
    (rows, channels), others = side.rows.shape, len(other.rows)
    width = side.rows.element_size()
    config = configuration(row, family(side.rows), width, channels, 1)
    launch = Launch(
        kernel,
        tile_count(rows, config.block_p) * tile_count(others, span),
        {
            "rows_ptr": side.rows,
            "stride_xr": side.rows.stride(0),
            "stride_xd": side.rows.stride(1),
            "others_ptr": other.rows,
            "stride_xo": other.rows.stride(0),
            "stride_xe": other.rows.stride(1),
            "row_scale_ptr": side.scale,
            "other_scale_ptr": other.scale,
            **dict(zip(("own_ptr", "plus_ptr", "minus_ptr"), labels, strict=True)),
            "rows": rows,
            "others": others,
            **arguments,
        },
        {
            **arithmetic(side.rows),
            **constants,
            "SPAN": span,
            "D": channels,
            "BLOCK_P": config.block_p,
            "BLOCK_D": config.block_d,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, side.rows)


def role_constants(call: PairRolesCall) -> dict[str, Any]:
    """The constants of `roles`, and of `read_products` what it reads."""
    return {
        "DISTANCE": call.similarity == "euclidean",
        "ALL": call.all_in_denominator,
        "EXCLUDE_SELF": call.exclude_self,
        "IGNORE_INDEX": call.ignore_index,
    }
