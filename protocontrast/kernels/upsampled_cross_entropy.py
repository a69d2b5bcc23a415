"""Cross-entropy of bilinearly upsampled logits, and its gradient: (M16).

Forward gathers the four cells of every pixel of a tile, all classes at once. Backward gathers, for
every cell, the pixels that read it, and takes their softmax anew: no atomics, nothing saved.
"""

from typing import Any

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

TILE, BACKWARD_TILE = 1024, 512
"""Numbers in a tile of pixels, or of cells, and classes: several such tiles are alive at once."""


@triton.jit
def reads(position, inputs, outputs, ALIGNED: tl.constexpr, ACC: tl.constexpr):
    """Cells that an output position reads, and the share of the upper one; exact in integers."""
    if ALIGNED:
        part = position * (inputs - 1)
        whole = tl.maximum(outputs - 1, 1)
    else:
        part = tl.maximum((2 * position + 1) * inputs - outputs, 0)
        whole = 2 * outputs
    lower = part // whole
    share = (part - lower * whole).to(ACC) / whole
    return lower, tl.minimum(lower + 1, inputs - 1), share


@triton.jit
def first_reader(cell, inputs, outputs, ALIGNED: tl.constexpr):
    """A position at most two before the first that reads the cell with a weight other than 0."""
    if ALIGNED:
        return tl.maximum(cell - 1, 0) * (outputs - 1) // tl.maximum(inputs - 1, 1)
    else:
        return tl.maximum((2 * cell - 1) * outputs - inputs, 0) // (2 * inputs)


@triton.jit
def cells(
    image_ptr, stride_xc, stride_xh, stride_xw, row, column, inside,
    ACC: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Logits [N, BLOCK_C] of one cell per pixel, 0 outside."""
    offs_c = tl.arange(0, BLOCK_C)
    where = row * stride_xh + column * stride_xw
    return tl.load(
        image_ptr + where[:, None] + offs_c[None, :].to(tl.int64) * stride_xc,
        mask=inside[:, None] & (offs_c[None, :] < C),
        other=0.0,
    ).to(ACC)


@triton.jit
def blended(lower, upper, share):
    """The upper values [N, BLOCK_C] with their share [N]; what has no share is not read.

    The lower ones always have some.
    """
    part = tl.where(share[:, None] == 0.0, 0.0, upper * share[:, None])
    return lower * (1.0 - share)[:, None] + part


@triton.jit
def scored(
    image_ptr, stride_xc, stride_xh, stride_xw,
    label_ptr, stride_yh, stride_yw, share_ptr, row, column, inside,
    top, bottom, down, left, right, across,
    WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Exponentials [N, BLOCK_C] of the pixels' logits under their peak, and per pixel: their sum,
    the own logit under the peak, the weight; whether a class is the pixel's own [N, BLOCK_C].
    Then the logits and, per pixel, whether it has a label, which smoothing alone reads.

    A weight is 0 where the pixel is ignored or its own logit is -inf, and NaN where its label is no
    class.
    """
    offs_c = tl.arange(0, BLOCK_C)
    upper = blended(
        cells(image_ptr, stride_xc, stride_xh, stride_xw, top, left, inside, ACC, C, BLOCK_C),
        cells(image_ptr, stride_xc, stride_xh, stride_xw, top, right, inside, ACC, C, BLOCK_C),
        across,
    )
    lower = blended(
        cells(image_ptr, stride_xc, stride_xh, stride_xw, bottom, left, inside, ACC, C, BLOCK_C),
        cells(image_ptr, stride_xc, stride_xh, stride_xw, bottom, right, inside, ACC, C, BLOCK_C),
        across,
    )
    logits = blended(upper, lower, down)
    logits = tl.where(offs_c[None, :] < C, logits, float("-inf"))
    peak = tl.max(logits, axis=1)
    # Where no class is present, -inf less -inf would be NaN.
    logits -= tl.where(peak == float("-inf"), 0.0, peak)[:, None]
    exponentials = tl.exp(logits)
    label = tl.load(label_ptr + row * stride_yh + column * stride_yw, mask=inside, other=0)
    label = label.to(tl.int64)
    used = inside & (label != IGNORE_INDEX)
    # A wrong label among the padding is no absent class.
    member = used[:, None] & (label[:, None] == offs_c[None, :]) & (offs_c[None, :] < C)
    if WEIGHTED:
        share = tl.load(share_ptr + offs_c, mask=offs_c < C, other=0.0).to(ACC)
        weight = tl.sum(tl.where(member, share[None, :], 0.0), axis=1)
    else:
        weight = used.to(ACC)
    weight = tl.where(used & ((label < 0) | (label >= C)), float("nan"), weight)
    own = tl.sum(tl.where(member, logits, 0.0), axis=1)
    weight = tl.where(own == float("-inf"), 0.0, weight)
    used = used & (own != float("-inf"))
    return exponentials, tl.sum(exponentials, axis=1), own, weight, member, logits, used


@triton.jit
def smoothed(
    share_ptr, weight, used, logits,
    WEIGHTED: tl.constexpr, SMOOTHING: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """What a pixel's log-sum-exp, its own logit and every logit count [N], and the weights of the
    pixel's classes [N, BLOCK_C]; one whose logit is -inf is none of them."""
    offs_c = tl.arange(0, BLOCK_C)
    there = logits != float("-inf")
    if WEIGHTED:
        share = tl.load(share_ptr + offs_c, mask=offs_c < C, other=0.0).to(ACC)
        share = tl.where(there, share[None, :], 0.0)
    else:
        share = there.to(ACC)
    smoothing = tl.full([1], SMOOTHING, ACC)
    count = tl.maximum(tl.sum(there.to(ACC), axis=1), 1.0)
    even = tl.where(used, smoothing / count, 0.0)
    own = weight * (1.0 - smoothing)
    return own + even * tl.sum(share, axis=1), own, even, share


@triton.jit
def upsampled_cross_entropy_kernel(
    logits_ptr, stride_xb, stride_xc, stride_xh, stride_xw,
    labels_ptr, stride_yb, stride_yh, stride_yw, share_ptr, loss_ptr, mass_ptr,
    height, width, rows, columns,
    WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr, ALIGNED: tl.constexpr, ACC: tl.constexpr,
    SMOOTHING: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per BLOCK_P pixels of one image; it also sums their weights."""
    tiles = tl.cdiv(rows * columns, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = ((tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int64)
    inside = offs_p < rows * columns
    row, column = offs_p // columns, offs_p % columns
    top, bottom, down = reads(row, height, rows, ALIGNED, ACC)
    left, right, across = reads(column, width, columns, ALIGNED, ACC)
    _, total, own, weight, _, logits, used = scored(
        logits_ptr + image * stride_xb, stride_xc, stride_xh, stride_xw,
        labels_ptr + image * stride_yb, stride_yh, stride_yw, share_ptr, row, column, inside,
        top, bottom, down, left, right, across,
        WEIGHTED, IGNORE_INDEX, ACC, C, BLOCK_C,
    )  # fmt: skip
    if SMOOTHING == 0.0:
        loss = tl.where(weight == 0.0, 0.0, weight * (tl.log(total) - own))
    else:
        whole, pulled, even, share = smoothed(
            share_ptr, weight, used, logits, WEIGHTED, SMOOTHING, ACC, C, BLOCK_C
        )
        spread = tl.sum(tl.where(share == 0.0, 0.0, share * logits), axis=1)
        loss = whole * tl.log(total) - pulled * own - even * spread
        loss = tl.where(whole == 0.0, 0.0, loss)
    first = image * rows * columns
    tl.store(loss_ptr + first + offs_p, loss, mask=inside)
    tl.store(mass_ptr + tl.program_id(0), tl.sum(weight, axis=0))


@triton.jit
def upsampled_cross_entropy_backward_kernel(
    logits_ptr, stride_xb, stride_xc, stride_xh, stride_xw,
    gradient_ptr, stride_gb, stride_gc, stride_gh, stride_gw,
    labels_ptr, stride_yb, stride_yh, stride_yw, share_ptr,
    grad_output_ptr, stride_ub, stride_uh, stride_uw,
    height, width, rows, columns, most_rows, most_columns,
    WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr, ALIGNED: tl.constexpr, ACC: tl.constexpr,
    SMOOTHING: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per BLOCK_P cells of one image: at most most_rows x most_columns pixels each."""
    tiles = tl.cdiv(height * width, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = ((tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int64)
    offs_c = tl.arange(0, BLOCK_C)
    exists = offs_p < height * width
    cell_y, cell_x = offs_p // width, offs_p % width
    first_y = first_reader(cell_y, height, rows, ALIGNED)
    first_x = first_reader(cell_x, width, columns, ALIGNED)
    total = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for step_y in range(most_rows):
        row = first_y + step_y
        top, bottom, down = reads(row, height, rows, ALIGNED, ACC)
        reads_y = exists & (row < rows) & ((top == cell_y) | (bottom == cell_y))
        part_y = tl.where(top == cell_y, 1.0 - down, 0.0) + tl.where(bottom == cell_y, down, 0.0)
        for step_x in range(most_columns):
            column = first_x + step_x
            left, right, across = reads(column, width, columns, ALIGNED, ACC)
            inside = reads_y & (column < columns) & ((left == cell_x) | (right == cell_x))
            part = tl.where(left == cell_x, 1.0 - across, 0.0)
            part = (part + tl.where(right == cell_x, across, 0.0)) * part_y
            exponentials, mass, _, weight, member, logits, used = scored(
                logits_ptr + image * stride_xb, stride_xc, stride_xh, stride_xw,
                labels_ptr + image * stride_yb, stride_yh, stride_yw, share_ptr,
                row, column, inside, top, bottom, down, left, right, across,
                WEIGHTED, IGNORE_INDEX, ACC, C, BLOCK_C,
            )  # fmt: skip
            grad_output = tl.load(
                grad_output_ptr + image * stride_ub + row * stride_uh + column * stride_uw,
                mask=inside,
                other=0.0,
            ).to(ACC)
            if SMOOTHING == 0.0:
                grad_logits = exponentials / mass[:, None] - tl.where(member, 1.0, 0.0)
                grad_logits *= (weight * grad_output)[:, None]
            else:
                whole, pulled, even, share = smoothed(
                    share_ptr, weight, used, logits, WEIGHTED, SMOOTHING, ACC, C, BLOCK_C
                )
                grad_logits = exponentials * (whole / mass)[:, None]
                grad_logits -= tl.where(member, pulled[:, None], 0.0) + even[:, None] * share
                grad_logits *= grad_output[:, None]
                weight = whole
            # Ignored pixels may read NaN, and pixels that do not read the cell are not there.
            none = (weight == 0.0) | (grad_output == 0.0)
            total += tl.where(none[:, None], 0.0, grad_logits * part[:, None])
    where = image * stride_gb + cell_y * stride_gh + cell_x * stride_gw
    tl.store(
        gradient_ptr + where[:, None] + offs_c[None, :].to(tl.int64) * stride_gc,
        total,
        mask=exists[:, None] & (offs_c[None, :] < C),
    )


def _arguments(call: UpsampledCall) -> dict[str, Any]:
    logits, labels = call.logits, call.labels
    strides = zip(
        ("stride_xb", "stride_xc", "stride_xh", "stride_xw"), logits.stride(), strict=True
    )
    label_strides = zip(("stride_yb", "stride_yh", "stride_yw"), labels.stride(), strict=True)
    return {
        "logits_ptr": logits,
        **dict(strides),
        "labels_ptr": labels,
        **dict(label_strides),
        "share_ptr": call.class_weight,
        "height": logits.shape[2],
        "width": logits.shape[3],
        "rows": labels.shape[1],
        "columns": labels.shape[2],
    }


def _constants(tile: int, call: UpsampledCall) -> dict[str, Any]:
    classes = call.logits.shape[1]
    block_c = power_of_two(classes)
    return {
        "WEIGHTED": call.class_weight is not None,
        "IGNORE_INDEX": call.ignore_index,
        "ALIGNED": call.align_corners,
        "SMOOTHING": call.label_smoothing,
        "ACC": tl.float64 if call.logits.dtype == torch.float64 else tl.float32,
        "C": classes,
        "BLOCK_C": block_c,
        "BLOCK_P": max(2, tile // block_c),
    }


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
    constants = _constants(TILE, call)
    tiles = tile_count(labels.shape[1] * labels.shape[2], constants["BLOCK_P"])
    mass = logits.new_empty(len(labels) * tiles, dtype=dtype)
    arguments = _arguments(call)
    launch = Launch(
        upsampled_cross_entropy_kernel,
        len(labels) * tiles,
        {**arguments, "loss_ptr": loss, "mass_ptr": mass},
        constants,
        options(4, 1),
    )
    run(launch, logits)
    return loss, mass.sum()


def upsampled_cross_entropy_backward(
    grad_output: Tensor, call: UpsampledCall, wants: tuple[bool]
) -> Tensor:
    """The gradient of the logits from that of the losses."""
    logits, labels = call.logits, call.labels
    gradient = torch.empty_like(logits)
    if labels.numel() == 0:
        return gradient
    constants = _constants(BACKWARD_TILE, call)
    height, width = logits.shape[2:]
    gradient_strides = ("stride_gb", "stride_gc", "stride_gh", "stride_gw")
    upstream_strides = ("stride_ub", "stride_uh", "stride_uw")
    launch = Launch(
        upsampled_cross_entropy_backward_kernel,
        len(labels) * tile_count(height * width, constants["BLOCK_P"]),
        {
            **_arguments(call),
            "gradient_ptr": gradient,
            **dict(zip(gradient_strides, gradient.stride(), strict=True)),
            "grad_output_ptr": grad_output,
            **dict(zip(upstream_strides, grad_output.stride(), strict=True)),
            "most_rows": _most_readers(height, labels.shape[1], call.align_corners),
            "most_columns": _most_readers(width, labels.shape[2], call.align_corners),
        },
        constants,
        # Without a spilled register, which other numbers of warps have; AMD's are twice as wide.
        options(8 if logits.shape[1] > 32 and family(logits) != "gfx942" else 4, 1),
    )
    run(launch, logits)
    return gradient
