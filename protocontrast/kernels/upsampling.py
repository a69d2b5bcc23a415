"""Pixels of an upsampled map in the order in which they are cheap: by the cells that they read.

Between two neighbouring cells, before the first and behind the last lie the intervals of an axis,
and output positions within them. Output rows of one interval read the same two rows of cells, which
a program blends in width once, then every output row from both.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)


class Grid(NamedTuple):
    """A tensor (B, C, H, W) of any strides, or (B, H, W)."""

    pointer: Any
    stride_b: Any
    stride_c: Any
    stride_h: Any
    stride_w: Any
    height: Any
    width: Any


class Reads(NamedTuple):
    """In which interval positions lie, and how far from the cell before it: `rest` of `whole`,
    `step` more with every position."""

    interval: Any
    rest: Any
    step: Any
    whole: Any


class Block(NamedTuple):
    """A program's pixels: the output rows of an image in one interval, from `row` to before `end`,
    and the columns [BLOCK_W] of a strip with the shares of the cells behind, some not there."""

    image: Any
    interval: Any
    row: Any
    end: Any
    down: Any
    columns: Any
    inside: Any
    strip: Any
    across: Any
    share: Any


def grid_of(tensor: Tensor) -> Grid:
    """A tensor as kernels take it."""
    (*_, stride_h, stride_w), (height, width) = tensor.stride(), tensor.shape[-2:]
    stride_c = tensor.stride(1) if tensor.ndim == 4 else 0
    return Grid(tensor, tensor.stride(0), stride_c, stride_h, stride_w, height, width)


def most_in(inputs: int, outputs: int, align_corners: bool) -> int:
    """Output positions in an interval, at most."""
    if not align_corners:
        return -(-outputs // inputs)
    return -(-(outputs - 1) // (inputs - 1)) or 1 if inputs > 1 else outputs


def power_of_two_below(most: int) -> int:
    """The largest power of two that is at most `most`, or 1."""
    return 1 << max(most, 1).bit_length() - 1


@triton.jit
def reads(position, inputs, outputs, ALIGNED: tl.constexpr):
    """Where output positions lie, exact in integers."""
    position, inputs, outputs = position.to(tl.int64), inputs.to(tl.int64), outputs.to(tl.int64)
    if ALIGNED:
        step, whole = inputs - 1, tl.maximum(outputs - 1, 1)
        part = position * step + whole
    else:
        step, whole = 2 * inputs, 2 * outputs
        part = position * step + inputs + outputs
    interval = part // whole
    rest = part - interval * whole
    return Reads(interval.to(tl.int32), rest.to(tl.int32), step.to(tl.int32), whole.to(tl.int32))


@triton.jit
def first_in(interval, inputs, outputs, ALIGNED: tl.constexpr):
    """The first output position that is not before an interval."""
    at, inputs, outputs = interval.to(tl.int64), inputs.to(tl.int64), outputs.to(tl.int64)
    if ALIGNED:
        apart = tl.maximum(inputs - 1, 1)
        # A single cell is read by all.
        part = (at - 1) * tl.where(inputs == 1, outputs, tl.maximum(outputs - 1, 1)) + apart - 1
    else:
        apart = 2 * inputs
        part = 2 * outputs * at - outputs + inputs - 1
    return tl.minimum(tl.maximum(part, 0) // apart, outputs).to(tl.int32)


@triton.jit
def share_behind(place, more, inputs, META: tl.constexpr):
    """The share of the cell behind positions, so many more in the same interval."""
    between = (place.interval > 0) & (place.interval < inputs)
    share = (place.rest + more * place.step).to(META.ACC) / place.whole.to(META.ACC)
    return tl.where(between, share, 0.0)


@triton.jit
def block_at(number, logits, labels, first_column, META: tl.constexpr):
    """The block with this number, its columns counted from the first one, which may be negative."""
    strips = tl.cdiv(labels.width - first_column, META.BLOCK_W)
    interval = (number // strips) % (logits.height + 1)
    image = (number // strips // (logits.height + 1)).to(tl.int64)
    row = first_in(interval, logits.height, labels.height, META.ALIGNED)
    end = first_in(interval + 1, logits.height, labels.height, META.ALIGNED)
    down = reads(row, logits.height, labels.height, META.ALIGNED)
    strip = number % strips
    columns = first_column + strip * META.BLOCK_W + tl.arange(0, META.BLOCK_W)
    inside = (columns >= 0) & (columns < labels.width)
    across = reads(tl.maximum(columns, 0), logits.width, labels.width, META.ALIGNED)
    share = share_behind(across, 0, logits.width, META)
    return Block(image, interval, row, end, down, columns, inside, strip, across, share)


@triton.jit
def blended(before, behind, share):
    """Values with the share of those behind; what has no share is not read.

    The ones before always have some.
    """
    return before * (1.0 - share) + tl.where(share == 0.0, 0.0, behind * share)


@triton.jit
def flat(values, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] in a single axis, of what has one row or one column."""
    return tl.reshape(tl.broadcast_to(values, [ROWS, COLUMNS]), [ROWS * COLUMNS])


@triton.jit
def load_by_columns(pointer, rows, columns, mask):
    """At the sums of two offsets, of rows [M] and of columns [N], each column a thread's own.

    Without the detour by a single axis triton may choose rows, and exchange what is loaded.
    """
    M: tl.constexpr = rows.shape[0]
    N: tl.constexpr = columns.shape[0]
    where = pointer + flat(rows[:, None], M, N) + flat(columns[None, :], M, N)
    return tl.reshape(tl.load(where, mask=flat(mask, M, N), other=0.0), [M, N])


@triton.jit
def row_before(logits, block, interval, first_class, META: tl.constexpr):
    """The row of cells before an interval, blended in width: [BLOCK_C, BLOCK_W], -inf where there
    is no class. In units of log(2), which spares every exponential a product."""
    classes = first_class + tl.arange(0, META.BLOCK_C)
    row = tl.minimum(tl.maximum(interval - 1, 0), logits.height - 1).to(tl.int64)
    before = tl.maximum(block.across.interval - 1, 0).to(tl.int64)
    behind = tl.minimum(block.across.interval, logits.width - 1).to(tl.int64)
    pointer = logits.pointer + block.image * logits.stride_b + row * logits.stride_h
    mask = block.inside[None, :]
    if META.BLOCK_C >= META.C:
        # Known when the kernel is compiled: padding takes no instruction.
        mask = mask & (classes < META.C)[:, None]
    where = tl.minimum(classes, META.C - 1).to(tl.int64) * logits.stride_c
    left = load_by_columns(pointer, where, before * logits.stride_w, mask)
    right = load_by_columns(pointer, where, behind * logits.stride_w, mask)
    wide = blended(left.to(META.ACC), right.to(META.ACC), block.share[None, :])
    wide *= tl.full([1, 1], LOG2E, META.ACC)
    return tl.where((classes < META.C)[:, None], wide, float("-inf"))


@triton.jit
def rows_around(logits, block, first_class, META: tl.constexpr):
    """The two rows of cells that the block's pixels read, of BLOCK_C classes."""
    above = row_before(logits, block, block.interval, first_class, META)
    return above, row_before(logits, block, block.interval + 1, first_class, META)


@triton.jit
def load_pixels(grid, block, rows, mask):
    """[BLOCK_R, BLOCK_W] of a grid without classes, 0 outside."""
    where = grid.pointer + block.image * grid.stride_b + rows[:, None].to(tl.int64) * grid.stride_h
    return tl.load(where + block.columns[None, :].to(tl.int64) * grid.stride_w, mask=mask, other=0)
