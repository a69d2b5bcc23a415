"""Prototypes made ready for one call, and the last step of their gradient: one launch each."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.configs import power_of_two
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    arithmetic,
    halves,
    options,
    run,
)
from protocontrast.kernels.lengths import inverse_of, size_of
from protocontrast.kernels.operands import narrowed, split, square_root

NEVER = tl.constexpr(-1e30)
"""Added to masked classes' logits: exp(NEVER - max) is exactly 0, and 0 * NEVER is not NaN."""


@triton.jit
def read_row(
    prototypes_ptr, stride_c, stride_d, present_ptr, stride_present, row, offs_d,
    SIMILARITY: tl.constexpr, PRESENCE: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """A row [1, BLOCK_ROW] and whether its class is present [1]; an absent one is not read."""
    present = row < C
    if PRESENCE:
        present = tl.load(present_ptr + row * stride_present, mask=row < C, other=0) != 0
    values = tl.load(
        prototypes_ptr + row[:, None].to(tl.int64) * stride_c + offs_d[None, :] * stride_d,
        mask=present[:, None] & (offs_d[None, :] < D),
        other=0.0,
    ).to(ACC)
    if not PRESENCE and SIMILARITY == "cosine":
        present = tl.sum((values != 0.0).to(tl.int32), axis=1) > 0
    return values, present


@triton.jit
def unit_rows(values, ACC: tl.constexpr):
    """Rows at unit length, 0 where they are 0, and one over their lengths."""
    size = size_of(tl.max(tl.abs(values), axis=1))
    values = values / size[:, None]
    inverse = inverse_of(square_root(tl.sum(values * values, axis=1), ACC))
    return values * inverse[:, None], inverse / size


@triton.jit
def lowest_equal(
    prototypes_ptr, stride_c, stride_d, present_ptr, stride_present, row, present,
    SIMILARITY: tl.constexpr, PRESENCE: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The lowest present class with the same prototype as the class `row`, [1]."""
    others = tl.arange(0, BLOCK_C)
    there = others < C
    if PRESENCE:
        there = tl.load(present_ptr + others * stride_present, mask=there, other=0) != 0
    differing = tl.zeros([BLOCK_C], dtype=tl.int32)
    filled = tl.zeros([BLOCK_C], dtype=tl.int32)
    for start in range(0, D, BLOCK_D):
        offs_d = start + tl.arange(0, BLOCK_D)
        columns = prototypes_ptr + offs_d[None, :] * stride_d
        inside = offs_d[None, :] < D
        own = tl.load(
            columns + row[:, None].to(tl.int64) * stride_c,
            mask=present[:, None] & inside,
            other=0.0,
        ).to(ACC)
        rows = tl.load(
            columns + others[:, None].to(tl.int64) * stride_c,
            mask=there[:, None] & inside,
            other=0.0,
        ).to(ACC)
        differing += tl.sum((rows != own).to(tl.int32), axis=1)
        filled += tl.sum((rows != 0.0).to(tl.int32), axis=1)
    if not PRESENCE and SIMILARITY == "cosine":
        there = filled > 0
    first = tl.min(tl.where((differing == 0) & there, others, BLOCK_C), axis=0)
    # A row that holds NaN is not equal to itself.
    return tl.where(present & (first < row), first, row)


@triton.jit
def inverse_temperature(high, low, temperature_ptr, ANNEALED: tl.constexpr, ACC: tl.constexpr):
    """One over the temperature, [1], which a tensor holds where that is annealed."""
    if ANNEALED:
        return 1.0 / tl.load(temperature_ptr + tl.arange(0, 1)).to(ACC)
    else:
        # Two float32 numbers, for a float64 one would be rounded on the way into a kernel.
        return tl.full([1], high, ACC) + tl.full([1], low, ACC)


@triton.jit
def prepare_kernel(
    prototypes_ptr, stride_pc, stride_pd, present_ptr, stride_present, share_ptr, stride_share,
    matrix_ptr, table_ptr, inverse_high, inverse_low, temperature_ptr,
    SIMILARITY: tl.constexpr, PRESENCE: tl.constexpr, SHARED: tl.constexpr,
    KEEP_ABSENT: tl.constexpr,
    EQUALS: tl.constexpr, OPERANDS: tl.constexpr, ACC: tl.constexpr, ANNEALED: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_ROW: tl.constexpr,
):  # fmt: skip
    """One program per class, padding included: its row of the matrix and column of the table."""
    row = tl.program_id(0) + tl.arange(0, 1)
    offs_d = tl.arange(0, BLOCK_ROW)
    values, present = read_row(
        prototypes_ptr, stride_pc, stride_pd, present_ptr, stride_present, row, offs_d,
        SIMILARITY, PRESENCE, ACC, C, D,
    )  # fmt: skip
    inverse = inverse_temperature(inverse_high, inverse_low, temperature_ptr, ANNEALED, ACC)
    scale = inverse
    matrix = values
    if SIMILARITY == "cosine":
        matrix, _ = unit_rows(values, ACC)
    elif SIMILARITY == "dot" and OPERANDS != "wide":
        # 16-bit halves of numbers at most 1: float16 has no larger ones than 65504.
        largest = tl.max(tl.abs(values), axis=1)
        largest = tl.where(largest == 0.0, 1.0, largest)
        matrix = values / largest[:, None]
        scale = inverse * largest
    into = matrix_ptr + row[:, None] * ROW + offs_d[None, :]
    mask = (offs_d < ROW)[None, :]
    if OPERANDS == "wide" or SIMILARITY == "euclidean":
        tl.store(into, matrix, mask=mask)
    else:
        upper, lower = split(matrix, matrix_ptr.dtype.element_ty)
        tl.store(into, upper, mask=mask)
        if OPERANDS == "split":
            tl.store(into + BLOCK_C * ROW, lower, mask=mask)
    offset = tl.where(present, 0.0, NEVER)
    share = (row < C).to(ACC)
    if SHARED:
        share = tl.load(share_ptr + row * stride_share, mask=row < C, other=0.0).to(ACC)
    if KEEP_ABSENT:
        offset = tl.where(present, 0.0, tl.where(row < C, -inverse, NEVER))
    else:
        share = tl.where(present, share, 0.0)
    tl.store(table_ptr + row, scale)
    tl.store(table_ptr + BLOCK_C + row, offset.to(ACC))
    tl.store(table_ptr + 2 * BLOCK_C + row, share.to(ACC))
    if EQUALS:
        first = lowest_equal(
            prototypes_ptr, stride_pc, stride_pd, present_ptr, stride_present, row, present,
            SIMILARITY, PRESENCE, ACC, C, D, BLOCK_C, 32,
        )  # fmt: skip
        tl.store(table_ptr + 3 * BLOCK_C + row, first.to(ACC))


@triton.jit
def finish_kernel(
    total_ptr, prototypes_ptr, stride_pc, stride_pd, present_ptr, stride_present,
    gradient_ptr, stride_gc, stride_gd, inverse_high, inverse_low, temperature_ptr,
    SIMILARITY: tl.constexpr, PRESENCE: tl.constexpr, ACC: tl.constexpr, ANNEALED: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BLOCK_ROW: tl.constexpr,
):  # fmt: skip
    """One program per class: the gradient of its prototype; an absent one gets exactly 0.

    dL/dp = total / tau; under cosine (total - u (u . total)) / (tau |p|) with u = p / |p|.
    """
    row = tl.program_id(0) + tl.arange(0, 1)
    offs_d = tl.arange(0, BLOCK_ROW)
    values, present = read_row(
        prototypes_ptr, stride_pc, stride_pd, present_ptr, stride_present, row, offs_d,
        SIMILARITY, PRESENCE, ACC, C, D,
    )  # fmt: skip
    mask = (row < C)[:, None] & (offs_d < D)[None, :]
    total = tl.load(total_ptr + row[:, None] * D + offs_d[None, :], mask=mask, other=0.0)
    total *= inverse_temperature(inverse_high, inverse_low, temperature_ptr, ANNEALED, ACC)
    if SIMILARITY == "cosine":
        unit, inverse = unit_rows(values, ACC)
        total = (total - unit * tl.sum(unit * total, axis=1)[:, None]) * inverse[:, None]
    tl.store(
        gradient_ptr + row[:, None].to(tl.int64) * stride_gc + offs_d[None, :] * stride_gd,
        narrowed(tl.where(present[:, None], total, 0.0), gradient_ptr.dtype.element_ty),
        mask=mask,
    )


class Prototypes(NamedTuple):
    """What `prepare` reads: rows (C, D), which are there and what they weigh, and for what."""

    rows: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    similarity: str
    temperature: float | Tensor
    keep_absent: bool = False

    @classmethod
    def of(cls, call: ContrastCall) -> "Prototypes":
        """Those of a contrast."""
        return cls(
            call.prototypes, call.present, call.class_weight,
            call.similarity, call.temperature, call.keep_absent,
        )  # fmt: skip


class Prepared(NamedTuple):
    """What `prepare` wrote; `constants` go to every kernel that reads it."""

    matrix: Tensor
    table: Tensor
    constants: dict[str, object]


def _warps(block: int) -> int:
    return 4 if block <= 2048 else 8


def _given(value: Tensor | None) -> tuple[Tensor | None, int]:
    return (None, 0) if value is None else (value, value.stride(0))


def _inverse(temperature: float | Tensor) -> tuple[dict[str, Any], bool]:
    """Arguments of `inverse_temperature`, and whether the temperature is a tensor."""
    if isinstance(temperature, Tensor):
        return {"inverse_high": 1.0, "inverse_low": 0.0, "temperature_ptr": temperature}, True
    high, low = halves(1 / temperature)
    return {"inverse_high": high, "inverse_low": low, "temperature_ptr": None}, False


def prepare(
    features: Tensor, given: Prototypes, equals: bool = False, whole: bool = False
) -> Prepared:
    """Matrix [1 or 2, BLOCK_C, ROW] and table [3 or 4, BLOCK_C] for these features.

    The table holds scale, offset and share of each class, with `equals` also the lowest present
    class that has the same prototype. With `whole` the matrix is not split into halves.
    """
    (classes, channels), kind = given.rows.shape, given.similarity
    block_c, row = power_of_two(classes), -(-channels // 16) * 16
    constants = {"SIMILARITY": kind, **arithmetic(features)}
    if whole:
        constants["OPERANDS"] = "wide"
    acc = accumulation_dtype(features)
    wide = constants["OPERANDS"] == "wide" or kind == "euclidean"
    halved = 2 if constants["OPERANDS"] == "split" and not wide else 1
    matrix = features.new_empty(halved, block_c, row, dtype=acc if wide else features.dtype)
    table = features.new_empty(4 if equals else 3, block_c, dtype=acc)
    present, stride_present = _given(given.present)
    class_weight, stride_share = _given(given.class_weight)
    inverse, annealed = _inverse(given.temperature)
    shapes = {"C": classes, "ROW": row, "BLOCK_C": block_c}
    block_row = power_of_two(row)
    arguments = {
        "prototypes_ptr": given.rows,
        "stride_pc": given.rows.stride(0),
        "stride_pd": given.rows.stride(1),
        "present_ptr": present,
        "stride_present": stride_present,
        "share_ptr": class_weight,
        "stride_share": stride_share,
        "matrix_ptr": matrix,
        "table_ptr": table,
        **inverse,
    }
    own = {
        "SIMILARITY": kind,
        "PRESENCE": present is not None,
        "SHARED": class_weight is not None,
        "KEEP_ABSENT": given.keep_absent,
        "EQUALS": equals,
        "OPERANDS": constants["OPERANDS"],
        "ACC": constants["ACC"],
        "ANNEALED": annealed,
        "D": channels,
        "BLOCK_ROW": block_row,
    }
    how = options(_warps(block_row), 1)
    run(Launch(prepare_kernel, block_c, arguments, {**own, **shapes}, how), features)
    return Prepared(matrix, table, {**constants, **shapes, "D": channels})


def finish(features: Tensor, total: Tensor, given: Prototypes) -> Tensor:
    """Gradient of the prototypes from sum_i of grad_sums and pixels, (C, D) contiguous."""
    classes, channels = given.rows.shape
    gradient = torch.empty_like(given.rows)
    present, stride_present = _given(given.present)
    inverse, annealed = _inverse(given.temperature)
    block_row = power_of_two(channels)
    arguments = {
        "total_ptr": total,
        "prototypes_ptr": given.rows,
        "stride_pc": given.rows.stride(0),
        "stride_pd": given.rows.stride(1),
        "present_ptr": present,
        "stride_present": stride_present,
        "gradient_ptr": gradient,
        "stride_gc": gradient.stride(0),
        "stride_gd": gradient.stride(1),
        **inverse,
    }
    constants = {
        "SIMILARITY": given.similarity,
        "PRESENCE": present is not None,
        "ACC": arithmetic(features)["ACC"],
        "ANNEALED": annealed,
        "C": classes,
        "D": channels,
        "BLOCK_ROW": block_row,
    }
    how = options(_warps(block_row), 1)
    run(Launch(finish_kernel, classes, arguments, constants, how), features)
    return gradient
