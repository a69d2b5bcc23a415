"""Cross-entropy of bilinearly upsampled logits, and its gradient: (M16).

Forward gathers the four cells of every pixel of a tile, all classes at once. Backward gathers, for
every cell, the pixels that read it, and takes their softmax anew: no atomics, nothing saved.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import UpsampledCall
from protocontrast.kernels.configs import power_of_two
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    options,
    run,
    tile_count,
)
from protocontrast.kernels.meta import Meta, constants

TILE, BACKWARD_TILE = 1024, 512
"""Numbers in a tile of pixels, or of cells, and classes: several such tiles are alive at once."""


class Grid(NamedTuple):
    """A tensor (B, C, H, W) of any strides, or (B, H, W)."""

    pointer: Any
    stride_b: Any
    stride_c: Any
    stride_h: Any
    stride_w: Any
    height: Any
    width: Any
    size: Any


class Reads(NamedTuple):
    """Cells that output positions read along an axis, and the share of the upper one."""

    lower: Any
    upper: Any
    share: Any


class Pixels(NamedTuple):
    """Pixels [N] of one image, and which of them there are."""

    image: Any
    row: Any
    column: Any
    inside: Any


class Scores(NamedTuple):
    """Of pixels [N] by class [N, BLOCK_C]: exponentials of the logits under their peak and whether
    a class is the pixel's own; the sum of the exponentials, the own logit under the peak, the
    weight. Then the logits and whether a pixel has a label, which smoothing alone reads.

    A weight is 0 where the pixel is ignored or its own logit is -inf, and NaN where its label is no
    class.
    """

    exponentials: Any
    member: Any
    total: Any
    own: Any
    weight: Any
    logits: Any
    used: Any


@triton.jit
def reads(position, inputs, outputs, META: tl.constexpr):
    """What an output position reads; exact in integers."""
    if META.ALIGNED:
        part = position * (inputs - 1)
        whole = tl.maximum(outputs - 1, 1)
    else:
        part = tl.maximum((2 * position + 1) * inputs - outputs, 0)
        whole = 2 * outputs
    lower = part // whole
    share = (part - lower * whole).to(META.ACC) / whole
    return Reads(lower, tl.minimum(lower + 1, inputs - 1), share)


@triton.jit
def part_of(axis, cell):
    """What a cell counts for positions along an axis, and whether they read it."""
    lower, upper = axis.lower == cell, axis.upper == cell
    part = tl.where(lower, 1.0 - axis.share, 0.0) + tl.where(upper, axis.share, 0.0)
    return part, lower | upper


@triton.jit
def first_reader(cell, inputs, outputs, ALIGNED: tl.constexpr):
    """A position at most two before the first that reads the cell with a weight other than 0."""
    if ALIGNED:
        return tl.maximum(cell - 1, 0) * (outputs - 1) // tl.maximum(inputs - 1, 1)
    else:
        return tl.maximum((2 * cell - 1) * outputs - inputs, 0) // (2 * inputs)


@triton.jit
def cells(logits, pixels, row, column, META: tl.constexpr):
    """Logits [N, BLOCK_C] of one cell per pixel, 0 outside."""
    offs_c = tl.arange(0, META.BLOCK_C)
    where = row * logits.stride_h + column * logits.stride_w
    return tl.load(
        logits.pointer
        + pixels.image * logits.stride_b
        + where[:, None]
        + offs_c[None, :].to(tl.int64) * logits.stride_c,
        mask=pixels.inside[:, None] & (offs_c[None, :] < META.C),
        other=0.0,
    ).to(META.ACC)


@triton.jit
def load_grid(grid, pixels):
    """[N] of a grid without classes, 0 outside."""
    where = grid.pointer + pixels.image * grid.stride_b + pixels.row * grid.stride_h
    return tl.load(where + pixels.column * grid.stride_w, mask=pixels.inside, other=0)


@triton.jit
def class_weights(share, META: tl.constexpr):
    """Weights [1, BLOCK_C] of the classes."""
    offs_c = tl.arange(0, META.BLOCK_C)
    return tl.load(share + offs_c, mask=offs_c < META.C, other=0.0).to(META.ACC)[None, :]


@triton.jit
def blended(lower, upper, share):
    """The upper values [N, BLOCK_C] with their share [N]; what has no share is not read.

    The lower ones always have some.
    """
    part = tl.where(share[:, None] == 0.0, 0.0, upper * share[:, None])
    return lower * (1.0 - share)[:, None] + part


@triton.jit
def scored(logits, labels, share, pixels, down, across, META: tl.constexpr):
    """`Scores` of pixels that read the cells `down` the rows and `across` the columns."""
    offs_c = tl.arange(0, META.BLOCK_C)
    upper = blended(
        cells(logits, pixels, down.lower, across.lower, META),
        cells(logits, pixels, down.lower, across.upper, META),
        across.share,
    )
    lower = blended(
        cells(logits, pixels, down.upper, across.lower, META),
        cells(logits, pixels, down.upper, across.upper, META),
        across.share,
    )
    values = blended(upper, lower, down.share)
    values = tl.where(offs_c[None, :] < META.C, values, float("-inf"))
    peak = tl.max(values, axis=1)
    # Where no class is present, -inf less -inf would be NaN.
    values -= tl.where(peak == float("-inf"), 0.0, peak)[:, None]
    exponentials = tl.exp(values)
    label = load_grid(labels, pixels).to(tl.int64)
    used = pixels.inside & (label != META.IGNORE_INDEX)
    # A wrong label among the padding is no absent class.
    member = used[:, None] & (label[:, None] == offs_c[None, :]) & (offs_c[None, :] < META.C)
    if share is not None:
        weight = tl.sum(tl.where(member, class_weights(share, META), 0.0), axis=1)
    else:
        weight = used.to(META.ACC)
    weight = tl.where(used & ((label < 0) | (label >= META.C)), float("nan"), weight)
    own = tl.sum(tl.where(member, values, 0.0), axis=1)
    weight = tl.where(own == float("-inf"), 0.0, weight)
    used = used & (own != float("-inf"))
    total = tl.sum(exponentials, axis=1)
    return Scores(exponentials, member, total, own, weight, values, used)


@triton.jit
def smoothed(scores, share, META: tl.constexpr):
    """What a pixel's log-sum-exp, its own logit and every logit count [N], and the weights of the
    pixel's classes [N, BLOCK_C]; one whose logit is -inf is none of them."""
    there = scores.logits != float("-inf")
    if share is not None:
        weights = tl.where(there, class_weights(share, META), 0.0)
    else:
        weights = there.to(META.ACC)
    smoothing = tl.full([1], META.SMOOTHING, META.ACC)
    count = tl.maximum(tl.sum(there.to(META.ACC), axis=1), 1.0)
    even = tl.where(scores.used, smoothing / count, 0.0)
    own = scores.weight * (1.0 - smoothing)
    return own + even * tl.sum(weights, axis=1), own, even, weights


@triton.jit
def own_places(grid, META: tl.constexpr):
    """A program's places in a grid, and their numbers, [BLOCK_P] in int64."""
    tiles = tl.cdiv(grid.size, META.BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    first = (tl.program_id(0) % tiles) * META.BLOCK_P
    offs = (first + tl.arange(0, META.BLOCK_P)).to(tl.int64)
    return Pixels(image, offs // grid.width, offs % grid.width, offs < grid.size), offs


@triton.jit
def upsampled_cross_entropy_kernel(logits, labels, share, loss_ptr, mass, meta: tl.constexpr):
    """One program per BLOCK_P pixels of one image; it also sums their weights."""
    META: tl.constexpr = constants(meta)
    pixels, offs = own_places(labels, META)
    down = reads(pixels.row, logits.height, labels.height, META)
    across = reads(pixels.column, logits.width, labels.width, META)
    scores = scored(logits, labels, share, pixels, down, across, META)
    if META.SMOOTHING == 0.0:
        loss = scores.weight * (tl.log(scores.total) - scores.own)
        loss = tl.where(scores.weight == 0.0, 0.0, loss)
    else:
        whole, pulled, even, weights = smoothed(scores, share, META)
        spread = tl.sum(tl.where(weights == 0.0, 0.0, weights * scores.logits), axis=1)
        loss = whole * tl.log(scores.total) - pulled * scores.own - even * spread
        loss = tl.where(whole == 0.0, 0.0, loss)
    tl.store(loss_ptr + pixels.image * labels.size + offs, loss, mask=pixels.inside)
    tl.store(mass + tl.program_id(0), tl.sum(scores.weight, axis=0))


@triton.jit
def upsampled_cross_entropy_backward_kernel(
    logits, labels, share, gradient, grad_output, most, meta: tl.constexpr
):
    """One program per BLOCK_P cells of one image, for each of which `most` rows and columns of
    pixels are looked at."""
    META: tl.constexpr = constants(meta)
    cell, _ = own_places(logits, META)
    offs_c = tl.arange(0, META.BLOCK_C)
    first_y = first_reader(cell.row, logits.height, labels.height, META.ALIGNED)
    first_x = first_reader(cell.column, logits.width, labels.width, META.ALIGNED)
    total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for step_y in range(most[0]):
        row = first_y + step_y
        down = reads(row, logits.height, labels.height, META)
        part_y, reads_y = part_of(down, cell.row)
        reads_y = cell.inside & (row < labels.height) & reads_y
        for step_x in range(most[1]):
            column = first_x + step_x
            across = reads(column, logits.width, labels.width, META)
            part, inside = part_of(across, cell.column)
            inside = reads_y & (column < labels.width) & inside
            pixels = Pixels(cell.image, row, column, inside)
            scores = scored(logits, labels, share, pixels, down, across, META)
            back = load_grid(grad_output, pixels).to(META.ACC)
            weight = scores.weight
            if META.SMOOTHING == 0.0:
                softmax = scores.exponentials / scores.total[:, None]
                grad_logits = softmax - tl.where(scores.member, 1.0, 0.0)
                grad_logits *= (weight * back)[:, None]
            else:
                weight, pulled, even, weights = smoothed(scores, share, META)
                grad_logits = scores.exponentials * (weight / scores.total)[:, None]
                mass = tl.where(scores.member, pulled[:, None], 0.0) + even[:, None] * weights
                grad_logits -= mass
                grad_logits *= back[:, None]
            # Ignored pixels may read NaN, and pixels that do not read the cell are not there.
            none = (weight == 0.0) | (back == 0.0)
            total += tl.where(none[:, None], 0.0, grad_logits * (part * part_y)[:, None])
    where = gradient.pointer + cell.image * gradient.stride_b
    where += cell.row * gradient.stride_h + cell.column * gradient.stride_w
    tl.store(
        where[:, None] + offs_c[None, :].to(tl.int64) * gradient.stride_c,
        total,
        mask=cell.inside[:, None] & (offs_c[None, :] < META.C),
    )


def _grid(tensor: Tensor) -> Grid:
    """A tensor as kernels take it."""
    (*_, stride_h, stride_w), (height, width) = tensor.stride(), tensor.shape[-2:]
    stride_c = tensor.stride(1) if tensor.ndim == 4 else 0
    strides = tensor.stride(0), stride_c, stride_h, stride_w
    return Grid(tensor, *strides, height, width, height * width)


def _constants(tile: int, call: UpsampledCall) -> Meta:
    classes = call.logits.shape[1]
    block_c = power_of_two(classes)
    return Meta(
        tl.float64 if call.logits.dtype == torch.float64 else tl.float32,
        C=classes,
        BLOCK_C=block_c,
        BLOCK_P=max(2, tile // block_c),
        IGNORE_INDEX=call.ignore_index,
        ALIGNED=call.align_corners,
        SMOOTHING=call.label_smoothing,
    )


def _most_readers(inputs: int, outputs: int, align_corners: bool) -> int:
    """From `first_reader` on, this many positions hold all that read a cell."""
    if inputs == 1:
        return outputs
    apart = -(-(outputs - 1) // (inputs - 1)) if align_corners else -(-outputs // inputs)
    return min(outputs, 2 * apart + 2)


def upsampled_cross_entropy(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    """Loss of every pixel (B, H, W), and the sum of their weights ()."""
    logits, labels = call.logits, call.labels
    dtype = accumulation_dtype(logits)
    loss = logits.new_empty(labels.shape, dtype=dtype)
    if labels.numel() == 0:
        return loss, logits.new_zeros((), dtype=dtype)
    meta = _constants(TILE, call)
    tiles = tile_count(labels.shape[1] * labels.shape[2], meta.BLOCK_P)
    mass = logits.new_empty(len(labels) * tiles, dtype=dtype)
    arguments = _grid(logits), _grid(labels), call.class_weight, loss, mass
    kernel, programs = upsampled_cross_entropy_kernel, len(labels) * tiles
    run(Launch(kernel, programs, arguments, meta, options(4, 1)), logits)
    return loss, mass.sum()


def upsampled_cross_entropy_backward(
    grad_output: Tensor, call: UpsampledCall, wants: tuple[bool]
) -> Tensor:
    """The gradient of the logits from that of the losses."""
    logits, labels = call.logits, call.labels
    gradient = torch.empty_like(logits)
    if labels.numel() == 0:
        return gradient
    meta = _constants(BACKWARD_TILE, call)
    sizes = zip(logits.shape[2:], labels.shape[1:], strict=True)
    most = tuple(_most_readers(*each, call.align_corners) for each in sizes)
    arguments = (
        _grid(logits), _grid(labels), call.class_weight, _grid(gradient), _grid(grad_output), most
    )  # fmt: skip
    programs = len(labels) * tile_count(logits.shape[2] * logits.shape[3], meta.BLOCK_P)
    # Without a spilled register, which other numbers of warps have; AMD's are twice as wide.
    how = options(8 if logits.shape[1] > 32 and family(logits) != "gfx942" else 4, 1)
    run(Launch(upsampled_cross_entropy_backward_kernel, programs, arguments, meta, how), logits)
    return gradient
