"""Device functions for what a variance per class and channel adds to logits, and back: (D3).

`prepare` of prototypes.py has written the means as a matrix and, whole, the variance as another.
With q_i = f_i / |f_i| (cosine), or f_i itself (dot), the parts of a logit are

    score_ic = scale_c matrix_c . q_i,    bonus_ic = breadth spread_c . q_i^2.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from protocontrast.calls import DistributionCall
from protocontrast.kernels.launch import arithmetic
from protocontrast.kernels.lengths import AT_ONCE, lengths_of, out_of_range
from protocontrast.kernels.operands import add_product, load_tile
from protocontrast.kernels.prototypes import Prototypes, prepare
from protocontrast.kernels.scores import add_scores, logits_of


@triton.jit
def add_parts(
    tile, total, squared, bonus, matrix_ptr, spread_ptr, offs_d,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, SPREAD_OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of channels added to products with means and spreads, and to squared lengths."""
    total, squared = add_scores(
        tile, total, squared, matrix_ptr, offs_d,
        SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
    )  # fmt: skip
    columns = spread_ptr + offs_d[:, None] + tl.arange(0, BLOCK_C)[None, :] * ROW
    spread = tl.load(columns, mask=offs_d[:, None] < ROW, other=0.0)  # [BLOCK_D, BLOCK_C]
    wide = tile.to(ACC)
    # 16 bits do not hold the square of a 16-bit number.
    bonus = add_product(wide * wide, spread, bonus, SPREAD_OPERANDS, PRECISION, ACC)
    return total, squared, bonus


@triton.jit
def read_parts(
    image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr, spread_ptr,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, SPREAD_OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    ROW: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Products and squared lengths of a tile of pixels over all channels."""
    total = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    squared = tl.zeros([BLOCK_P], dtype=ACC)
    bonus = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for start in range(0, D, BLOCK_D):
        offs_d = start + tl.arange(0, BLOCK_D)
        tile = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D)
        total, squared, bonus = add_parts(
            tile, total, squared, bonus, matrix_ptr, spread_ptr, offs_d,
            SIMILARITY, OPERANDS, SPREAD_OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
        )  # fmt: skip
    return total, squared, bonus


@triton.jit
def parts_of(
    total, squared, bonus, scale, breadth, image_ptr, stride_d, stride_p, offs_p, pixels,
    matrix_ptr, spread_ptr, SIMILARITY: tl.constexpr, ACC: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Scores and bonus [BLOCK_P, BLOCK_C] of the products, and the inverse lengths [BLOCK_P, 1]."""
    length = lengths_of(
        total, squared, image_ptr, stride_d, stride_p, offs_p, pixels, matrix_ptr,
        SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
    )  # fmt: skip
    scores, inverse = logits_of(total, length, scale, SIMILARITY, ACC)
    bonus *= inverse * inverse
    if SIMILARITY == "cosine":
        bonus = unit_bonus(
            squared, bonus, inverse, image_ptr, stride_d, stride_p, offs_p, pixels, spread_ptr,
            ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
    return scores, bonus * breadth[None, :], inverse


@triton.jit
def unit_bonus(
    squared, bonus, inverse, image_ptr, stride_d, stride_p, offs_p, pixels, spread_ptr,
    ACC: tl.constexpr, C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """spread_c . q_i^2 of a tile, read again where squares of a pixel left the dtype's range."""
    STEP: tl.constexpr = AT_ONCE // BLOCK_P
    offs_c = tl.arange(0, BLOCK_C)
    doubtful = out_of_range(squared, ACC) & (offs_p < pixels)
    stop = D if tl.max(doubtful[:, None].to(tl.int32)) > 0 else 0
    again = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        tile = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D)
        unit = tile.to(ACC) * inverse
        for c in range(C):
            row = tl.load(spread_ptr + c * ROW + offs_d, mask=offs_d < ROW, other=0.0)
            part = tl.sum(unit * unit * row[None, :], axis=1)
            again += tl.where(offs_c[None, :] == c, part[:, None], 0.0)
    return tl.where(doubtful[:, None], again, bonus)


@triton.jit
def along_spread(
    direction, grad_logits, spread_ptr, offs_d,
    SPREAD_OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """2 q_id sum_c slope_ic spread_cd, [BLOCK_P, BLOCK_D], of directions in ACC."""
    rows = spread_ptr + tl.arange(0, BLOCK_C)[:, None] * ROW + offs_d[None, :]
    spread = tl.load(rows, mask=offs_d[None, :] < ROW, other=0.0)  # [BLOCK_C, BLOCK_D]
    return 2 * direction * add_product(grad_logits, spread, None, SPREAD_OPERANDS, PRECISION, ACC)


@triton.jit
def squares_to_rows(
    direction, grad_logits,
    SPREAD_OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """sum_i dL/dz_ic q_i^2, [BLOCK_D, BLOCK_C], of directions in ACC."""
    across = tl.trans(direction)
    return add_product(across * across, grad_logits, None, SPREAD_OPERANDS, PRECISION, ACC)


def tables_of(call: DistributionCall) -> tuple[Prototypes, Prototypes]:
    """Means, and variances over twice the square of the temperature."""
    divisor = 2 * call.temperature * call.temperature
    return (
        Prototypes(call.prototypes, call.present, call.class_weight, "dot", call.temperature),
        Prototypes(call.variance, call.present, None, "dot", divisor),
    )


def prepare_both(call: DistributionCall) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means and variances made ready: run-time arguments and constants of a kernel of both."""
    of_means, of_variances = tables_of(call)
    means = prepare(call.features, of_means)
    spreads = prepare(call.features, of_variances, whole=True)
    arguments = {
        "matrix_ptr": means.matrix,
        "table_ptr": means.table,
        "spread_ptr": spreads.matrix,
        "breadth_ptr": spreads.table,
    }
    constants = {
        **means.constants,
        "SIMILARITY": "cosine" if call.normalize else "dot",
        "SPREAD_OPERANDS": arithmetic(call.features, torch.bfloat16)["OPERANDS"],
    }
    return arguments, constants
