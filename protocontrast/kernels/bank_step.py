"""Class sums of a batch become the next state of a bank: (M9), with the bias, (M10) and (M11).

The same launch makes the rows ready for the kernels that read them next: one program per class.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import StepCall
from protocontrast.kernels.configs import power_of_two
from protocontrast.kernels.launch import Launch, halves, options, run, sizes
from protocontrast.kernels.meta import Meta, constants
from protocontrast.kernels.operands import square_root
from protocontrast.kernels.prototypes import (
    Given,
    Rows,
    empty_prepared,
    inverse_temperature,
    lowest_equal,
    present_of,
    store_class,
)
from protocontrast.kernels.tiles import Vector

AT_ONCE = 2048
"""Numbers of partial sums that a program has in flight."""


class Parts(NamedTuple):
    """Class sums (S, C, D), or means (1, C, D), and pixels (S, C) of S parts of a batch."""

    sums: Any
    counts: Any
    number: Any


class Bank(NamedTuple):
    """Buffers of a bank: rows (C, D), what they rest on, presence and what was skipped (C,)."""

    rows: Any
    pixels: Any
    present: Any
    skipped: Any


class Bias(NamedTuple):
    """Buffers of a bias: rows (C, D), presence and updates (C,)."""

    rows: Any
    present: Any
    updates: Any


class Share(NamedTuple):
    """What a new value weighs, and an old one, each as two float32 numbers."""

    old_high: Any
    old_low: Any
    new_high: Any
    new_low: Any


class Moves(NamedTuple):
    """A bank, or a bias, before and after, and what values weigh."""

    old: Any
    new: Any
    share: Any


class Pull(NamedTuple):
    """Where a bias is measured from, a bank, and the pixels (C,) of the classes of the loss.

    The pixels are None where classes do not weigh alike, both are None where a bias stays.
    """

    source: Any
    pixels: Any


class Ready(NamedTuple):
    """What is written for the next kernels; None is not wanted.

    Pixels (C,) of each class; classes of both banks (C,); prototypes of the loss made ready;
    calibrated rows (C, D), and these or those of the bank made ready for the transfer.
    """

    pixels: Any
    shared: Any
    own: Any
    calibrated: Any
    near: Any


@triton.jit
def summed(parts, row, offs_d, META: tl.constexpr):
    """Sums [1, BLOCK_D] and pixels [1] of a class over all parts, in their order."""
    total = tl.zeros([META.BLOCK_S, META.BLOCK_D], dtype=META.ACC)
    count = tl.zeros([META.BLOCK_S, 1], dtype=META.ACC)
    for start in range(0, parts.number, META.BLOCK_S):
        slot = start + tl.arange(0, META.BLOCK_S)
        there = (slot < parts.number)[:, None] & (row < META.C)[None, :]
        where = slot[:, None].to(tl.int64) * META.C + row[None, :]
        count += tl.load(parts.counts + where, mask=there, other=0.0)
        mask = there & (offs_d < META.D)[None, :]
        total += tl.load(parts.sums + where * META.D + offs_d[None, :], mask=mask, other=0.0)
    return tl.sum(total, axis=0)[None, :], tl.sum(count, axis=0)


@triton.jit
def all_finite(values):
    """Whether rows hold finite numbers only, [1]."""
    return tl.min((values - values == 0.0).to(tl.int32), axis=1) > 0


@triton.jit
def at_unit_length(values, UNIT: tl.constexpr):
    """Float64 rows as a bank keeps them; the square of no float32 number vanishes."""
    if UNIT:
        length = square_root(tl.sum(values * values, axis=1), tl.float64)
        values = values / tl.where(length == 0.0, 1.0, length)[:, None]
    return values


@triton.jit
def mixed(share, old, new):
    """(M9) the old value and the new one, in float64."""
    keeps = tl.full([1, 1], share.old_high, tl.float64) + tl.full([1, 1], share.old_low, tl.float64)
    takes = tl.full([1, 1], share.new_high, tl.float64) + tl.full([1, 1], share.new_low, tl.float64)
    return keeps * old + takes * new


@triton.jit
def bank_step_kernel(parts, bank, bias, pull, given, ready, meta: tl.constexpr):
    """One program per class, padding included."""
    META: tl.constexpr = constants(meta)
    row = tl.program_id(0) + tl.arange(0, 1)
    offs_d = tl.arange(0, META.BLOCK_D)
    real = row < META.C
    mask = real[:, None] & (offs_d < META.D)[None, :]
    where = row[:, None].to(tl.int64) * META.D + offs_d[None, :]
    total, pixels = summed(parts, row, offs_d, META)
    tl.store(ready.pixels + row, pixels, mask=real)
    if not META.MEANS:
        total = total / tl.where(pixels != 0.0, pixels, 1.0)[:, None]
    mean = total.to(tl.float64)
    ROWS: tl.constexpr = bank.old.rows.dtype.element_ty
    counted = pixels - pixels == 0.0
    finite = all_finite(mean.to(ROWS)) & counted
    lost = ((pixels > 0.0) | ~counted) & ~finite
    used = (pixels > 0.0) & finite
    old = tl.load(bank.old.rows + where, mask=mask, other=0.0)
    there = tl.load(bank.old.present + row, mask=real, other=0) != 0
    before = tl.load(bank.old.pixels + row, mask=real, other=0.0)
    # Where a row is not used its batch value may be NaN.
    value = tl.where(used[:, None], mean, 0.0)
    new = tl.where(there[:, None], mixed(bank.share, old.to(tl.float64), value), value)
    new = tl.where(used[:, None], at_unit_length(new, META.UNIT).to(ROWS), old)
    present = there | used
    tl.store(bank.new.rows + where, new, mask=mask)
    added = tl.where(used, pixels, 0.0).to(before.dtype)
    tl.store(bank.new.pixels + row, before + added, mask=real)
    tl.store(bank.new.present + row, present, mask=real)
    skipped = tl.load(bank.old.skipped + row, mask=real, other=0)
    tl.store(bank.new.skipped + row, skipped + lost.to(tl.int64), mask=real)
    weight = present.to(META.ACC)
    if pull.source is not None:
        reference = tl.load(pull.source.rows + where, mask=mask, other=0.0).to(tl.float64)
        known = tl.load(pull.source.present + row, mask=real, other=0) != 0
        gap = at_unit_length(mean, META.UNIT) - reference
        BIAS: tl.constexpr = bias.old.rows.dtype.element_ty
        both = (pixels > 0.0) & known & all_finite(gap.to(BIAS))
        gap = tl.where(both[:, None], gap, 0.0)
        shift = tl.load(bias.old.rows + where, mask=mask, other=0.0)
        began = tl.load(bias.old.present + row, mask=real, other=0) != 0
        grown = mixed(bias.share, shift.to(tl.float64), gap)
        if META.COPY:
            grown = tl.where(began[:, None], grown, gap)
        tl.store(bias.new.rows + where, tl.where(both[:, None], grown.to(BIAS), shift), mask=mask)
        tl.store(bias.new.present + row, began | both, mask=real)
        updates = tl.load(bias.old.updates + row, mask=real, other=0)
        tl.store(bias.new.updates + row, updates + both.to(tl.int64), mask=real)
        shared = present & known
        tl.store(ready.shared + row, shared, mask=real)
        weight = shared.to(META.ACC)
        if META.WHOLE_CLASS:
            members = tl.load(pull.pixels + row, mask=real, other=1.0)
            weight = weight / tl.maximum(members, META.WHOLE_CLASS)
    inverse = inverse_temperature(given, META.ACC)
    rows = tl.where(present[:, None], new.to(META.ACC), 0.0)
    store_class(rows, present, weight, inverse, row, ready.own, META)
    if ready.near is not None:
        near = new
        if ready.calibrated is not None:
            near = new + tl.load(bias.old.rows + where, mask=mask, other=0.0).to(ROWS)
            tl.store(ready.calibrated + where, near, mask=mask)
        rows = tl.where(present[:, None], near.to(META.ACC), 0.0)
        NEAR: tl.constexpr = constants(META, KEEP_ABSENT=False)
        if not META.CONFIDENCE:
            # The similarity itself is wanted exactly, so 1/tau stays out of it.
            inverse = tl.full([1], 1.0, META.ACC)
        store_class(rows, present, present.to(META.ACC), inverse, row, ready.near, NEAR)


@triton.jit
def equals_kernel(given, table, meta: tl.constexpr):
    """The last row of a table: one program per class, for which all of them must be there."""
    META: tl.constexpr = constants(meta)
    row = tl.program_id(0) + tl.arange(0, 1)
    first = lowest_equal(given, row, present_of(given, row, META), META.BLOCK_D, META)
    tl.store(table + 3 * META.BLOCK_C + row, first.to(META.ACC))


class Moved(NamedTuple):
    """A bank after a batch, its bias where it is measured, and what is ready for the next kernels.

    Pixels (C,) are those that the bank took, of all ranks.
    """

    bank: Bank
    bias: Bias | None
    ready: Ready


def _share(momentum: float) -> Share:
    return Share(*halves(momentum), *halves(1 - momentum))


def _launch(kernel: Any, call: StepCall, arguments: tuple[Any, ...], meta: Meta) -> None:
    how = options(4 if meta.BLOCK_D <= 512 else 8, 1)
    run(Launch(kernel, meta.BLOCK_C, arguments, meta, how), call.source.features)


def _given(call: StepCall) -> Given:
    """The temperature alone."""
    if isinstance(call.temperature, Tensor):
        return Given(None, None, None, None, None, call.temperature)
    return Given(None, None, None, *halves(1 / call.temperature), None)


def _meta(call: StepCall, means: bool, **constants: Any) -> Meta:
    """The constants of both steps."""
    features, rows = call.source.features, call.source_bank[0]
    block_d = power_of_two(rows.shape[1])
    return sizes(
        features, rows.shape[0],
        BLOCK_D=block_d, BLOCK_S=max(1, AT_ONCE // block_d), PRECISION="", SIMILARITY="cosine",
        KEEP_ABSENT=call.keep_absent, CONFIDENCE=call.measure == "confidence", MEANS=means,
        UNIT=call.normalize == "prototypes", **constants,
    )  # fmt: skip


def move_source(call: StepCall, sums: Tensor, counts: Tensor, means: bool) -> Moved:
    """The source bank after its batch, with the tables that the pass over the target reads."""
    features, meta = call.source.features, _meta(call, means)
    bank, bias = Bank(*call.source_bank), Bias(*call.bias)
    moved = Bank(*map(torch.empty_like, bank))
    calibrated = torch.empty_like(bank.rows) if call.calibrates else None
    own, near = (empty_prepared(features, meta, equals) for equals in (False, True))
    pixels = counts.new_empty(meta.C)
    ready = Ready(pixels, None, own, calibrated, near)
    moves = Moves(bank, moved, _share(call.momenta[0]))
    parts = Parts(sums, counts, sums.shape[0])
    stays = Moves(bias, None, None)
    arguments = parts, moves, stays, Pull(None, None), _given(call), ready
    _launch(bank_step_kernel, call, arguments, meta)
    rows = moved.rows if calibrated is None else calibrated
    compared = Given(Rows(rows, meta.D, 1), Vector(moved.present, 1), None, None, None, None)
    across = max(16, min(meta.BLOCK_D, AT_ONCE // meta.BLOCK_C))
    _launch(equals_kernel, call, (compared, near.table), meta._replace(BLOCK_D=across))
    return Moved(moved, None, ready)


def move_target(
    call: StepCall, sums: Tensor, counts: Tensor, means: bool, source: Moved, members: Tensor
) -> Moved:
    """The target bank and the bias after their batch, with the tables of the source's contrast.

    `members`: the source's pixels of each class.
    """
    features = call.source.features
    meta = _meta(call, means, COPY=call.copies, WHOLE_CLASS=call.whole_class)
    bank, bias = Bank(*call.target_bank), Bias(*call.bias)
    moved, shifted = Bank(*map(torch.empty_like, bank)), Bias(*map(torch.empty_like, bias))
    pixels = counts.new_empty(meta.C)
    ready = Ready(
        pixels, torch.empty_like(bank.present), empty_prepared(features, meta, False), None, None
    )
    weighed = members if call.whole_class else None
    moves = Moves(bank, moved, _share(call.momenta[1]))
    shifts = Moves(bias, shifted, _share(call.momenta[2]))
    parts = Parts(sums, counts, sums.shape[0])
    arguments = parts, moves, shifts, Pull(source.bank, weighed), _given(call), ready
    _launch(bank_step_kernel, call, arguments, meta)
    return Moved(moved, shifted, ready)
