"""The end of a step, and the beginning of its way back: losses of both directions, and the state.

One program per class copies the state; one more adds up what pixels and classes have lost.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import StepCall
from protocontrast.kernels.bank_step import Bank, Bias, Moved
from protocontrast.kernels.configs import power_of_two
from protocontrast.kernels.contrast import Statistics
from protocontrast.kernels.launch import Launch, accumulating, options, run
from protocontrast.kernels.meta import constants
from protocontrast.kernels.totals import AT_ONCE, numbers_of, store_number, total_of


class Lost(NamedTuple):
    """Losses and weights of pixels; losses of classes (S, C) of S programs; what the targets weigh
    (C,); classes of both banks (C,)."""

    of_pixels: Any
    mass: Any
    of_classes: Any
    slots: Any
    members: Any
    shared: Any


class Seen(NamedTuple):
    """Pixels (C,) of each class in source and target, and how many there are of the target."""

    source: Any
    target: Any
    pixels: Any


class Told(NamedTuple):
    """Loss, to_source and to_target; coverage; the share of each class (C,)."""

    loss: Any
    to_source: Any
    to_target: Any
    coverage: Any
    class_share: Any


class Factors(NamedTuple):
    """What a class's loss is multiplied by in to_source (C,), and a pixel's in to_target."""

    of_classes: Any
    of_pixels: Any


class State(NamedTuple):
    """Banks of source and target, and the bias; their buffers, or what these will hold."""

    source: Any
    target: Any
    bias: Any


@triton.jit
def copy_class(into, moved, row, META: tl.constexpr):
    """A class of a bank or of a bias: its row, and the numbers behind."""
    offs_d = tl.arange(0, META.BLOCK_D)
    where, mask = row * META.D + offs_d, offs_d < META.D
    tl.store(into[0] + where, tl.load(moved[0] + where, mask=mask), mask=mask)
    for place in tl.static_range(1, len(into)):
        tl.store(into[place] + row, tl.load(moved[place] + row))


@triton.jit
def weighed(weight, term):
    """A term without weight is 0 whatever it holds."""
    return tl.where(weight == 0.0, 0.0, weight * term)


@triton.jit
def step_end_kernel(lost, seen, weights, results, state, meta: tl.constexpr):
    """`results` are told and factors, `state` the buffers and what they will hold."""
    META: tl.constexpr = constants(meta)
    row = tl.program_id(0).to(tl.int64)
    if row < META.C:
        for place in tl.static_range(len(state[0])):
            copy_class(state[0][place], state[1][place], row, META)
    else:
        told, factors = results[0], results[1]
        offs_c = tl.arange(0, META.BLOCK_C)
        real = offs_c < META.C
        by_class = tl.zeros([META.BLOCK_S, META.BLOCK_C], dtype=META.ACC)
        for start in range(0, lost.slots, META.BLOCK_S):
            slot = start + tl.arange(0, META.BLOCK_S)
            mask = (slot < lost.slots)[:, None] & real[None, :]
            where = slot[:, None] * META.C + offs_c[None, :]
            by_class += tl.load(lost.of_classes + where, mask=mask, other=0.0)
        shared = tl.load(lost.shared + offs_c, mask=real, other=0) != 0
        members = tl.load(lost.members + offs_c, mask=real, other=0.0).to(META.ACC)
        factor = shared.to(META.ACC)
        if META.WHOLE_CLASS:
            factor = factor / tl.maximum(members, META.WHOLE_CLASS)
        mass = tl.sum(tl.where(shared, factor * members, 0.0), axis=0)
        factor = factor / tl.where(mass == 0.0, 1.0, mass)
        to_source = tl.sum(tl.where(shared, factor * tl.sum(by_class, axis=0), 0.0), axis=0)
        weight = total_of(lost.mass, META)
        weight = tl.where(weight == 0.0, 1.0, weight)
        to_target = total_of(lost.of_pixels, META) / weight
        forth = tl.full([1], weights[0], META.ACC)
        back = tl.full([1], weights[1], META.ACC)
        one = tl.arange(0, 1)
        tl.store(told.loss + one, weighed(forth, to_source) + weighed(back, to_target))
        store_number(told.to_source, to_source, META.ACC)
        store_number(told.to_target, to_target, META.ACC)
        tl.store(factors.of_classes + offs_c, factor, mask=real)
        store_number(factors.of_pixels, 1.0 / weight, META.ACC)
        of_source = tl.load(seen.source + offs_c, mask=real, other=0.0).to(tl.float32)
        of_target = tl.load(seen.target + offs_c, mask=real, other=0.0).to(tl.float32)
        labelled = tl.sum(of_target, axis=0)
        covered = tl.zeros([1], tl.float32) + labelled
        tl.store(told.coverage + one, covered / tl.full([1], seen.pixels, tl.float32))
        of_source_share = of_source / tl.maximum(tl.sum(of_source, axis=0), 1.0)
        ratio = (
            of_target / tl.maximum(labelled, 1.0) / tl.where(of_source > 0, of_source_share, 1.0)
        )
        tl.store(told.class_share + offs_c, tl.where(of_source > 0, ratio, 0.0), mask=real)


@triton.jit
def step_back_kernel(table, upstream, weights, factors, reweighed, meta: tl.constexpr):
    """The table of the target's contrast with the shares that its gradient has; then a row of ones;
    then what comes back to each pixel of the source."""
    META: tl.constexpr = constants(meta)
    offs_c = tl.arange(0, META.BLOCK_C)
    one = tl.arange(0, 1)
    forth, back = tl.zeros([1], META.ACC), tl.zeros([1], META.ACC)
    if upstream[0] is not None:
        whole = tl.load(upstream[0] + one).to(META.ACC)
        forth += weighed(tl.full([1], weights[0], META.ACC), whole)
        back += weighed(tl.full([1], weights[1], META.ACC), whole)
    if upstream[1] is not None:
        forth += tl.load(upstream[1] + one).to(META.ACC)
    if upstream[2] is not None:
        back += tl.load(upstream[2] + one).to(META.ACC)
    factor = tl.load(factors.of_classes + offs_c, mask=offs_c < META.C, other=0.0)
    tl.store(reweighed + offs_c, tl.load(table + offs_c))
    tl.store(reweighed + META.BLOCK_C + offs_c, tl.load(table + META.BLOCK_C + offs_c))
    share = tl.where(factor != 0.0, factor * forth, 0.0)
    tl.store(reweighed + 2 * META.BLOCK_C + offs_c, share)
    tl.store(reweighed + 3 * META.BLOCK_C + offs_c, tl.full([META.BLOCK_C], 1.0, META.ACC))
    returned = back * tl.load(factors.of_pixels + one)
    tl.store(reweighed + 4 * META.BLOCK_C + offs_c, tl.zeros([META.BLOCK_C], META.ACC) + returned)


def end_step(
    call: StepCall,
    statistics: Statistics,
    of_classes: tuple[Tensor, Tensor],
    seen: Seen,
    source: Moved,
    target: Moved,
) -> tuple[Told, Factors]:
    """Losses and shares; the state is written to its buffers.

    `of_classes`: losses (S, C) of the target's classes, and what its targets weigh (C,).
    """
    lost, members = of_classes
    features = call.source.features
    classes, channels = source.bank.rows.shape
    losses, mass = statistics.loss, statistics.mass
    loss, to_source, to_target, of_pixels = (losses.new_empty(()) for _ in range(4))
    coverage = losses.new_empty((), dtype=torch.float32)
    class_share = losses.new_empty(classes, dtype=torch.float32)
    told = Told(loss, to_source, to_target, coverage, class_share)
    factors = Factors(losses.new_empty(classes), of_pixels)
    blocks = power_of_two(classes)
    meta = accumulating(
        features, C=classes, D=channels, BLOCK_C=blocks, BLOCK_D=power_of_two(channels),
        BLOCK_P=AT_ONCE, BLOCK_S=max(1, AT_ONCE // blocks), WHOLE_CLASS=call.whole_class,
    )  # fmt: skip
    state = State(Bank(*call.source_bank), Bank(*call.target_bank), Bias(*call.bias))
    arguments = (
        Lost(
            numbers_of(losses), numbers_of(mass), lost, lost.shape[0], members, target.ready.shared
        ),
        seen, call.weights, (told, factors),
        (state, State(source.bank, target.bank, target.bias)),
    )  # fmt: skip
    run(Launch(step_end_kernel, classes + 1, arguments, meta, options(8, 1)), features)
    torch.autograd.graph.increment_version((*state.source, *state.target, *state.bias))
    return told, factors


def send_step_back(
    call: StepCall,
    upstream: Sequence[Tensor | None],
    table: Tensor,
    factors: Factors,
    lse: Sequence[Tensor],
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What comes back to pixels of source and target, each like `lse`; the table of the target's.

    Every pixel of a domain gets the same number.
    """
    blocks = table.shape[1]
    reweighed = table.new_empty(5, blocks)
    meta = accumulating(call.target, C=factors.of_classes.shape[0], BLOCK_C=blocks)
    arguments = table, tuple(upstream), call.weights, factors, reweighed
    run(Launch(step_back_kernel, 1, arguments, meta, options(1, 1)), call.target)
    to_source, to_target = (
        reweighed.as_strided(pixels.shape, (0, 0), row * blocks)
        for pixels, row in zip(lse, (4, 3), strict=True)
    )
    return (to_source, to_target), reweighed
