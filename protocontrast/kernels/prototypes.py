"""Prototypes made ready for one call, and the last step of their gradient: one launch each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall, LogitsCall, accumulation_dtype
from protocontrast.kernels.configs import may_leave_logits, power_of_two
from protocontrast.kernels.launch import (
    Launch,
    accumulating,
    family,
    halves,
    has_runs,
    options,
    run,
    sizes,
)
from protocontrast.kernels.lengths import inverse_of, size_of
from protocontrast.kernels.meta import Meta, constants
from protocontrast.kernels.operands import narrowed, split, square_root
from protocontrast.kernels.tiles import map_of, vector_of

NEVER = tl.constexpr(-1e30)
"""Added to masked classes' logits: exp(NEVER - max) is exactly 0, and 0 * NEVER is not NaN."""


class Rows(NamedTuple):
    """A matrix (C, D) of any strides."""

    pointer: Any
    stride_c: Any
    stride_d: Any


class Given(NamedTuple):
    """Prototypes as kernels take them: their rows, vectors of presence and weights or None, and
    one over the temperature in two halves, or a tensor that holds the temperature."""

    rows: Any
    present: Any
    share: Any
    inverse_high: Any
    inverse_low: Any
    temperature: Any


class Prepared(NamedTuple):
    """What `prepare` wrote: a matrix [1 or 2, BLOCK_C, ROW] and a table [3 or 4, BLOCK_C].

    The table holds scale, offset and share of each class, and maybe the lowest present class that
    has the same prototype.
    """

    matrix: Any
    table: Any


class WithLengths(NamedTuple):
    """The same, and what a forward leaves to its backward, or None: lengths of the pixels (B, P)
    under cosine, and a map of their logits (B, C, P), absent classes like any other."""

    matrix: Any
    table: Any
    lengths: Any
    logits: Any


@triton.jit
def present_of(given, classes, META: tl.constexpr):
    """Which of these classes are there, as far as the caller says."""
    present = classes < META.C
    if given.present is not None:
        where = given.present.pointer + classes * given.present.stride
        present = tl.load(where, mask=classes < META.C, other=0) != 0
    return present


@triton.jit
def load_rows(given, classes, present, offs_d, META: tl.constexpr):
    """A block of channels of these classes' rows; an absent one is not read."""
    where = given.rows.pointer + classes[:, None].to(tl.int64) * given.rows.stride_c
    mask = present[:, None] & (offs_d[None, :] < META.D)
    return tl.load(where + offs_d[None, :] * given.rows.stride_d, mask=mask, other=0.0).to(META.ACC)


@triton.jit
def read_row(given, row, offs_d, META: tl.constexpr):
    """A row [1, BLOCK_D] and whether its class is present [1]."""
    present = present_of(given, row, META)
    values = load_rows(given, row, present, offs_d, META)
    if given.present is None and META.SIMILARITY == "cosine":
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
def lowest_equal(given, row, present, BLOCK: tl.constexpr, META: tl.constexpr):
    """The lowest present class with the same prototype as the class `row`, [1]."""
    others = tl.arange(0, META.BLOCK_C)
    there = present_of(given, others, META)
    differing = tl.zeros([META.BLOCK_C], dtype=tl.int32)
    filled = tl.zeros([META.BLOCK_C], dtype=tl.int32)
    for start in range(0, META.D, BLOCK):
        offs_d = start + tl.arange(0, BLOCK)
        own = load_rows(given, row, present, offs_d, META)
        rows = load_rows(given, others, there, offs_d, META)
        differing += tl.sum((rows != own).to(tl.int32), axis=1)
        filled += tl.sum((rows != 0.0).to(tl.int32), axis=1)
    if given.present is None and META.SIMILARITY == "cosine":
        there = filled > 0
    first = tl.min(tl.where((differing == 0) & there, others, META.BLOCK_C), axis=0)
    # A row that holds NaN is not equal to itself.
    return tl.where(present & (first < row), first, row)


@triton.jit
def inverse_temperature(given, ACC: tl.constexpr):
    """One over the temperature, [1]."""
    if given.temperature is not None:
        return 1.0 / tl.load(given.temperature + tl.arange(0, 1)).to(ACC)
    else:
        # Two float32 numbers, for a float64 one would be rounded on the way into a kernel.
        return tl.full([1], given.inverse_high, ACC) + tl.full([1], given.inverse_low, ACC)


@triton.jit
def prepare_kernel(given, prepared, meta: tl.constexpr):
    """One program per class, padding included: its row of the matrix and column of the table."""
    META: tl.constexpr = constants(meta)
    row = tl.program_id(0) + tl.arange(0, 1)
    offs_d = tl.arange(0, META.BLOCK_D)
    values, present = read_row(given, row, offs_d, META)
    share = (row < META.C).to(META.ACC)
    if given.share is not None:
        where = given.share.pointer + row * given.share.stride
        share = tl.load(where, mask=row < META.C, other=0.0).to(META.ACC)
    inverse = inverse_temperature(given, META.ACC)
    store_class(values, present, share, inverse, row, prepared, META)
    if META.EQUALS:
        first = lowest_equal(given, row, present, 32, META)
        tl.store(prepared.table + row + 3 * META.BLOCK_C, first.to(META.ACC))


@triton.jit
def store_class(values, present, share, inverse, row, prepared, META: tl.constexpr):
    """A class's row of the matrix and its column of the table, but for the lowest equal class."""
    offs_d = tl.arange(0, META.BLOCK_D)
    scale = inverse
    matrix = values
    if META.SIMILARITY == "cosine":
        matrix, _ = unit_rows(values, META.ACC)
    elif META.SIMILARITY == "dot" and META.OPERANDS != "wide":
        # 16-bit halves of numbers at most 1: float16 has no larger ones than 65504.
        largest = tl.max(tl.abs(values), axis=1)
        largest = tl.where(largest == 0.0, 1.0, largest)
        matrix = values / largest[:, None]
        scale = inverse * largest
    into = prepared.matrix + row[:, None] * META.ROW + offs_d[None, :]
    mask = (offs_d < META.ROW)[None, :]
    if META.OPERANDS == "wide" or META.SIMILARITY == "euclidean":
        tl.store(into, matrix, mask=mask)
    else:
        upper, lower = split(matrix, prepared.matrix.dtype.element_ty)
        tl.store(into, upper, mask=mask)
        if META.OPERANDS == "split":
            tl.store(into + META.BLOCK_C * META.ROW, lower, mask=mask)
    offset = tl.where(present, 0.0, NEVER)
    if META.KEEP_ABSENT:
        offset = tl.where(present, 0.0, tl.where(row < META.C, -inverse, NEVER))
    else:
        share = tl.where(present, share, 0.0)
    column = prepared.table + row
    tl.store(column, scale)
    tl.store(column + META.BLOCK_C, offset.to(META.ACC))
    tl.store(column + 2 * META.BLOCK_C, share.to(META.ACC))


@triton.jit
def finish_kernel(given, total_ptr, gradient, meta: tl.constexpr):
    """One program per class: the gradient of its prototype; an absent one gets exactly 0.

    dL/dp = total / tau; under cosine (total - u (u . total)) / (tau |p|) with u = p / |p|.
    """
    META: tl.constexpr = constants(meta)
    row = tl.program_id(0) + tl.arange(0, 1)
    offs_d = tl.arange(0, META.BLOCK_D)
    values, present = read_row(given, row, offs_d, META)
    mask = (row < META.C)[:, None] & (offs_d < META.D)[None, :]
    total = tl.load(total_ptr + row[:, None] * META.D + offs_d[None, :], mask=mask, other=0.0)
    total *= inverse_temperature(given, META.ACC)
    if META.SIMILARITY == "cosine":
        unit, inverse = unit_rows(values, META.ACC)
        total = (total - unit * tl.sum(unit * total, axis=1)[:, None]) * inverse[:, None]
    into = gradient.pointer + row[:, None].to(tl.int64) * gradient.stride_c
    total = narrowed(tl.where(present[:, None], total, 0.0), gradient.pointer.dtype.element_ty)
    tl.store(into + offs_d[None, :] * gradient.stride_d, total, mask=mask)


class Prototypes(NamedTuple):
    """What `prepare` reads: rows (C, D), which are there and what they weigh, and for what."""

    rows: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    similarity: str
    temperature: float | Tensor
    keep_absent: bool = False
    ready: Sequence[Tensor] = ()
    """Matrix and table, where these have been made by now, and maybe lengths."""

    @classmethod
    def of(cls, call: ContrastCall, *ready: Tensor) -> "Prototypes":
        """Those of a contrast."""
        return cls(
            call.prototypes, call.present, call.class_weight,
            call.similarity, call.temperature, call.keep_absent, ready,
        )  # fmt: skip

    @classmethod
    def of_logits(cls, call: LogitsCall, *ready: Tensor) -> "Prototypes":
        """Those of logits."""
        rows = call.prototypes, call.present, None
        return cls(*rows, call.similarity, call.temperature, ready=ready)


def _warps(block: int) -> dict[str, Any]:
    return options(4 if block <= 2048 else 8, 1)


def _as_given(prototypes: Prototypes, share: Tensor | None) -> Given:
    """In the form of kernels."""
    temperature = prototypes.temperature
    rows = Rows(prototypes.rows, *prototypes.rows.stride())
    vectors = vector_of(prototypes.present), vector_of(share)
    if isinstance(temperature, Tensor):
        return Given(rows, *vectors, None, None, temperature)
    return Given(rows, *vectors, *halves(1 / temperature), None)


def empty_prepared(features: Tensor, meta: Meta, equals: bool) -> Prepared:
    """Room for matrix and table."""
    acc = accumulation_dtype(features)
    wide = meta.OPERANDS == "wide" or meta.SIMILARITY == "euclidean"
    halved = 2 if meta.OPERANDS == "split" and not wide else 1
    dtype = acc if wide else features.dtype
    return Prepared(
        features.new_empty(halved, meta.BLOCK_C, meta.ROW, dtype=dtype),
        features.new_empty(4 if equals else 3, meta.BLOCK_C, dtype=acc),
    )


def prepare(
    features: Tensor,
    given: Prototypes,
    equals: bool = False,
    whole: bool = False,
) -> Prepared:
    """Matrix and table for these features.

    With `equals` the table has its fourth row, with `whole` the matrix is not split into halves.
    """
    if given.ready:
        return Prepared(*given.ready[:2])
    classes, channels = given.rows.shape
    operands: dict[str, Any] = {"OPERANDS": "wide"} if whole else {}
    meta = sizes(
        features, classes,
        BLOCK_D=power_of_two(channels), PRECISION="", SIMILARITY=given.similarity,
        KEEP_ABSENT=given.keep_absent, EQUALS=equals, **operands,
    )  # fmt: skip
    prepared = empty_prepared(features, meta, equals)
    arguments = _as_given(given, given.class_weight), prepared
    run(Launch(prepare_kernel, meta.BLOCK_C, arguments, meta, _warps(meta.BLOCK_D)), features)
    return prepared


def prepare_with_lengths(features: Tensor, given: Prototypes) -> WithLengths:
    """The same with room for lengths and logits, or with those that `ready` has, if any."""
    lengths, logits = given.ready[2:] or (None, None)
    left = map_of(logits) if logits is not None and logits.numel() else None
    return WithLengths(*prepare(features, given), lengths, left)


def finish(features: Tensor, total: Tensor, given: Prototypes) -> Tensor:
    """Gradient of the prototypes from sum_i of grad_sums and pixels, (C, D) contiguous."""
    classes, channels = given.rows.shape
    gradient = torch.empty_like(given.rows)
    block_d, similarity = power_of_two(channels), given.similarity
    meta = accumulating(features, C=classes, D=channels, BLOCK_D=block_d, SIMILARITY=similarity)
    arguments = _as_given(given, None), total, Rows(gradient, *gradient.stride())
    run(Launch(finish_kernel, classes, arguments, meta, _warps(meta.BLOCK_D)), features)
    return gradient


def ready_for_contrast(call: ContrastCall) -> Sequence[Tensor]:
    """What both ways of a contrast read of its classes, and room for what one leaves to the other:
    its pixels' lengths under cosine, and maybe logits; nothing where it has no pixels."""
    features = call.features
    images, _, pixels = features.shape
    if images * pixels == 0:
        return ()
    room = images, pixels if call.similarity == "cosine" else 0
    acc = accumulation_dtype(features)
    lengths = features.new_empty(room, dtype=acc)
    size = (*room[:1], len(call.prototypes), pixels if leaves_logits(call) else 0)
    return *prepare(features, Prototypes.of(call)), lengths, features.new_empty(size, dtype=acc)


def leaves_logits(call: ContrastCall) -> bool:
    """Whether a contrast leaves logits, which of distances it does not."""
    features, classes = call.features, len(call.prototypes)
    width, channels = features.element_size(), features.shape[1]
    size = family(features), width, channels, classes, has_runs(features)
    return call.similarity != "euclidean" and may_leave_logits(*size)


def ready_for_logits(call: LogitsCall) -> Sequence[Tensor]:
    """The same of logits."""
    features = call.features
    return prepare(features, Prototypes.of_logits(call)) if features.numel() else ()
