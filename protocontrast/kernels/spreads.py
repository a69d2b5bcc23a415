"""Device functions for what a variance per class and channel adds to logits, and back: (D3).

`prepare` of prototypes.py has written the means as a matrix and, whole, the variance as another.
With q_i = f_i / |f_i| (cosine), or f_i itself (dot), the parts of a logit are

    score_ic = scale_c matrix_c . q_i,    bonus_ic = breadth spread_c . q_i^2.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from protocontrast.calls import DistributionCall
from protocontrast.kernels.launch import arithmetic, plan
from protocontrast.kernels.lengths import AT_ONCE, lengths_of, out_of_range, row_of
from protocontrast.kernels.meta import Meta
from protocontrast.kernels.operands import add_product
from protocontrast.kernels.prototypes import Prepared, Prototypes, prepare
from protocontrast.kernels.scores import add_scores, logits_of
from protocontrast.kernels.tiles import inside, load_tile


class Both(NamedTuple):
    """Means and variances made ready; of the variances' table the first row, breadth, is read."""

    means: Prepared
    spreads: Prepared


@triton.jit
def add_parts(block, total, squared, bonus, both, offs_d, META: tl.constexpr):
    """A block of channels added to products with means and spreads, and to squared lengths."""
    total, squared = add_scores(block, total, squared, both.means.matrix, offs_d, META)
    offs_c = tl.arange(0, META.BLOCK_C)
    columns = both.spreads.matrix + offs_d[:, None] + offs_c[None, :] * META.ROW
    spread = tl.load(columns, mask=offs_d[:, None] < META.ROW, other=0.0)  # [BLOCK_D, BLOCK_C]
    wide = block.to(META.ACC)
    # 16 bits do not hold the square of a 16-bit number.
    bonus = add_product(wide * wide, spread, bonus, META.SPREAD_OPERANDS, META)
    return total, squared, bonus


@triton.jit
def read_parts(tile, both, META: tl.constexpr):
    """Products and squared lengths of a tile of pixels over all channels."""
    total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    bonus = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, META.D, META.BLOCK_D):
        offs_d = start + tl.arange(0, META.BLOCK_D)
        block = load_tile(tile, offs_d, META)
        total, squared, bonus = add_parts(block, total, squared, bonus, both, offs_d, META)
    return total, squared, bonus


@triton.jit
def breadth_of(both, META: tl.constexpr):
    """What a bonus is multiplied by, [BLOCK_C]."""
    return tl.load(both.spreads.table + tl.arange(0, META.BLOCK_C))


@triton.jit
def parts_of(parts, scale, breadth, tile, both, META: tl.constexpr):
    """Scores and bonus [BLOCK_P, BLOCK_C] of the products, and the inverse lengths [BLOCK_P, 1]."""
    total, squared, bonus = parts
    length = lengths_of(total, squared, tile, both.means.matrix, META)
    scores, inverse = logits_of(total, length, scale, META)
    bonus *= inverse * inverse
    if META.SIMILARITY == "cosine":
        bonus = unit_bonus(squared, bonus, inverse, tile, both.spreads.matrix, META)
    return scores, bonus * breadth[None, :], inverse


@triton.jit
def unit_bonus(squared, bonus, inverse, tile, spread, META: tl.constexpr):
    """spread_c . q_i^2 of a tile, read again where squares of a pixel left the dtype's range."""
    STEP: tl.constexpr = AT_ONCE // META.BLOCK_P
    offs_c = tl.arange(0, META.BLOCK_C)
    doubtful = out_of_range(squared, META.ACC) & inside(tile)
    stop = META.D if tl.max(doubtful[:, None].to(tl.int32)) > 0 else 0
    again = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for start in range(0, stop, STEP):
        offs_d = start + tl.arange(0, STEP)
        unit = load_tile(tile, offs_d, META).to(META.ACC) * inverse
        for c in range(META.C):
            part = tl.sum(unit * unit * row_of(spread, c, offs_d, META), axis=1)
            again += tl.where(offs_c[None, :] == c, part[:, None], 0.0)
    return tl.where(doubtful[:, None], again, bonus)


@triton.jit
def along_spread(direction, grad_logits, spread, offs_d, META: tl.constexpr):
    """2 q_id sum_c slope_ic spread_cd, [BLOCK_P, BLOCK_D], of directions in ACC."""
    rows = spread + tl.arange(0, META.BLOCK_C)[:, None] * META.ROW + offs_d[None, :]
    block = tl.load(rows, mask=offs_d[None, :] < META.ROW, other=0.0)  # [BLOCK_C, BLOCK_D]
    return 2 * direction * add_product(grad_logits, block, None, META.SPREAD_OPERANDS, META)


@triton.jit
def squares_to_rows(direction, grad_logits, META: tl.constexpr):
    """sum_i dL/dz_ic q_i^2, [BLOCK_D, BLOCK_C], of directions in ACC."""
    across = tl.trans(direction)
    return add_product(across * across, grad_logits, None, META.SPREAD_OPERANDS, META)


def tables_of(call: DistributionCall) -> tuple[Prototypes, Prototypes]:
    """Means, and variances over twice the square of the temperature."""
    divisor = 2 * call.temperature * call.temperature
    return (
        Prototypes(call.prototypes, call.present, call.class_weight, "dot", call.temperature),
        Prototypes(call.variance, call.present, None, "dot", divisor),
    )


def prepare_both(row: str, call: DistributionCall) -> tuple[Both, Meta, dict[str, Any]]:
    """Means and variances made ready, constants and launch options of a kernel of both."""
    features = call.features
    of_means, of_variances = tables_of(call)
    both = Both(prepare(features, of_means), prepare(features, of_variances, whole=True))
    meta, how = plan(row, features, len(call.prototypes))
    meta = meta._replace(
        SIMILARITY="cosine" if call.normalize else "dot",
        SPREAD_OPERANDS=arithmetic(features, torch.bfloat16)[1],
        IGNORE_INDEX=call.ignore_index,
    )
    return both, meta, how
