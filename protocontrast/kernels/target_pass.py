"""The target's part of a step: (M1), (M3), (M6) and (M7) for `target_pass`, forward.

One read, but where 16-bit features have more channels than a tile: then the sums are another. Its
gradient is the contrast's own, contrast_backward.py, under the fused labels.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall, TargetPassCall, accumulation_dtype
from protocontrast.kernels.class_prototypes import (
    Span,
    add_blocks,
    add_members,
    class_sums,
    counted,
    no_members,
    squares_of,
    store_sums,
)
from protocontrast.kernels.configs import FEW_CHANNELS
from protocontrast.kernels.contrast import normaliser_of
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.launch import (
    Launch,
    halves,
    long_span,
    plan,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.meta import constants
from protocontrast.kernels.scores import (
    add_scores,
    factor_of,
    products_of,
    side_by_side_in,
    waited_for,
    without_halves,
)
from protocontrast.kernels.target_pass_backward import tables_of
from protocontrast.kernels.targets import Targets, classes_among, soft_masses
from protocontrast.kernels.tiles import (
    Map,
    flat,
    inside,
    load_across,
    load_pixels,
    load_tile,
    map_of,
    span_at,
    tile_at,
)
from protocontrast.kernels.transfer import Threshold, limit_of, nearest_of


class Given(NamedTuple):
    """Maps of static labels and of soft targets, and masses (P,) of transferred labels, or None."""

    static: Any
    targets: Any
    filling: Any


class Results(NamedTuple):
    """Of each pixel (B, P), then of each program, by class; None is not wanted.

    (A field by the name of `values` would be hidden by an attribute of triton's tuples.)
    """

    labels: Any
    moved: Any
    measure: Any
    lse: Any
    partial: Any
    counts: Any
    losses: Any


@triton.jit
def both_factors(tables, offs_d, META: tl.constexpr):
    """The factors of both sets of prototypes side by side: one product reads a tile once."""
    WIDTH: tl.constexpr = META.BLOCK_C * (2 if side_by_side_in(META) else 1)
    columns = tl.arange(0, 2 * WIDTH)
    rows = columns % WIDTH
    matrix = tl.where(columns < WIDTH, tables.near.matrix, tables.own.matrix)
    mask = (offs_d < META.ROW)[:, None] & (rows % META.BLOCK_C < META.C)[None, :]
    columns = matrix[None, :] + rows[None, :] * META.ROW
    return tl.load(columns + offs_d[:, None], mask=mask, other=0.0)


@triton.jit
def both_products(total, META: tl.constexpr):
    """Products [BLOCK_P, BLOCK_C] with either set, of those with `both_factors`."""
    HALVES: tl.constexpr = 2 if side_by_side_in(META) else 1
    whole = tl.sum(tl.reshape(total, [META.BLOCK_P, 2, HALVES, META.BLOCK_C]), axis=2)
    return tl.split(tl.permute(whole, (0, 2, 1)))


@triton.jit
def add_both_scores(block, near, own, squared, tables, offs_d, META: tl.constexpr):
    """A block of channels against both sets of prototypes, for which it is loaded once."""
    near, squared = add_scores(block, near, squared, tables.near.matrix, offs_d, META)
    if META.TWO_PRODUCTS:
        DOT: tl.constexpr = constants(META, SIMILARITY="dot")
        own, _ = add_scores(block, own, squared, tables.own.matrix, offs_d, DOT)
        own = waited_for(own)
    return near, own, squared


@triton.jit
def share_of(label, tables, META: tl.constexpr):
    """What the loss of each label weighs; 0 for one of -1.

    Under "floor" an absent class has a share, too; here it carries no loss.
    """
    # A label is an address only where it is a class.
    column = tl.maximum(label, 0) + META.BLOCK_C
    there = tl.load(tables.near.table + column) == 0.0
    share = tl.load(tables.own.table + META.BLOCK_C + column)
    return tl.where(there & (label >= 0), share, 0.0)


@triton.jit
def fused_label(label, given, tile, META: tl.constexpr):
    """Transferred labels int64 under given ones; the class of a pixel that counts, int32 and else
    -1; and whether it is to count as none."""
    if given.static is not None:
        static = load_pixels(given.static, tile).to(tl.int64)
        label = tl.where(static != META.IGNORE_INDEX, static, label)
    own_class, wrong = classes_among(label, tile, META)
    return label, own_class, wrong


@triton.jit
def filled_masses(label, given, moved, tile, META: tl.constexpr):
    """Soft targets [BLOCK_P, BLOCK_C], and transferred labels where these have no mass."""
    offs_c = tl.arange(0, META.BLOCK_C)
    one = (offs_c < META.C).to(META.ACC)
    soft = soft_masses(given.targets, tile, one, META)
    if META.TRANSFER:
        free = inside(tile) & (tl.sum(soft, axis=1) == 0.0)
        label = tl.where(free, label, META.IGNORE_INDEX)
        tl.store(moved + flat(tile), label, mask=inside(tile))
        filling = one[None, :]
        if given.filling is not None:
            fill = tl.load(given.filling + tile.offs, mask=inside(tile), other=0.0)
            filling *= fill.to(META.ACC)[:, None]
        soft = tl.where(label[:, None] == offs_c[None, :], filling, soft)
    return soft


@triton.jit
def target_pass_kernel(features, given, tables, threshold, results, meta: tl.constexpr):
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    META: tl.constexpr = constants(meta)
    RESIDENT: tl.constexpr = META.BLOCK_D >= META.D
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    number = tl.program_id(0).to(tl.int64)
    offs_c, every_d = tl.arange(0, META.BLOCK_C), tl.arange(0, META.BLOCK_D)
    if RESIDENT and META.TWO_PRODUCTS:
        matrix = both_factors(tables, every_d, META)
    elif RESIDENT:
        matrix = factor_of(tables.near.matrix, every_d, META)
    if results.partial is not None:
        span = Span(features, image, first, 0, results.partial + number * META.C * META.D)
        total = no_members(META)
    else:
        span = Span(features, image, first, 0, None)
    lost = tl.zeros([META.BLOCK_C], dtype=META.ACC)
    if RESIDENT:
        # There are registers for them, and they are summed across threads once, at the end.
        lost = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        if RESIDENT:
            across = load_across(tile, every_d, META)
            squared = squares_of(across, META)
            block = tl.trans(across)
            products = products_of(block, matrix, None, META)
            if META.TWO_PRODUCTS:
                near, own = both_products(products, META)
            else:
                near = without_halves(products, META)
        else:
            near = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            own = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
            for start in range(0, META.D, META.BLOCK_D):
                offs_d = start + every_d
                block = load_tile(tile, offs_d, META)
                near, own, squared = add_both_scores(
                    block, near, own, squared, tables, offs_d, META
                )
        inverse = inverse_of(pixel_lengths(squared, tile, META))
        # Under cosine all classes have one scale. Columns of the tables are loaded where they are
        # used: held, they would take the registers of the sums.
        logits = near * tl.load(tables.near.table) * inverse[:, None]
        label = tl.full([META.BLOCK_P], META.IGNORE_INDEX, tl.int64)
        value = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        if META.TRANSFER:
            absent = tl.load(tables.near.table + META.BLOCK_C + offs_c)
            found, value, somewhere = nearest_of(
                logits + absent[None, :], absent, tables.near.table, META
            )
            kept = (value >= limit_of(threshold, found, META)) & somewhere
            label = tl.where(kept, found.to(tl.int64), label)
        if given.targets is not None:
            soft = filled_masses(label, given, results.moved, tile, META)
        label, own_class, wrong = fused_label(label, given, tile, META)
        tl.store(results.labels + flat(tile), label, mask=inside(tile))
        tl.store(results.measure + flat(tile), value, mask=inside(tile))
        member = own_class[:, None] == offs_c[None, :]
        lse = tl.full([META.BLOCK_P], float("inf"), META.ACC)
        if tables.own is not None:
            if META.TWO_PRODUCTS:
                logits = own * tl.load(tables.own.table) * inverse[:, None]
            logits += tl.load(tables.own.table + META.BLOCK_C + offs_c)[None, :]
            lse = normaliser_of(logits)
            if given.targets is not None:
                share = share_of(offs_c, tables, META)[None, :]
                mass = tl.where((soft == 0.0) | (share == 0.0), 0.0, soft * share)
                ignored = tl.sum(mass, axis=1) == 0.0
            else:
                share = share_of(own_class, tables, META)
                ignored = share == 0.0
                mass = tl.where(member, share[:, None], 0.0)
            by_class = tl.where(mass == 0.0, 0.0, mass * (lse[:, None] - logits))
            if given.static is not None:
                # Of two axes: triton 3.7 has no layout on sm_100 for the sum of a row to a number.
                by_class = tl.where(wrong[:, None], float("nan"), by_class)
            lost += by_class if RESIDENT else tl.sum(by_class, axis=0)
            # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
            lse = tl.where(ignored, float("inf"), lse)
        tl.store(results.lse + flat(tile), lse, mask=inside(tile))
        if results.partial is not None:
            factor = tl.full([META.BLOCK_P], 1.0, META.ACC)
            if META.NORMALIZE:
                factor = inverse
            if RESIDENT:
                total = waited_for(add_members(total, across, own_class, factor, META))
            else:
                total += add_blocks(span, tile, own_class, factor, step, False, META)
    if RESIDENT:
        lost = tl.sum(lost, axis=0)
    tl.store(results.losses + number * META.C + offs_c, lost, mask=offs_c < META.C)
    # What follows reads labels that other threads have stored.
    tl.debug_barrier()
    fused = Targets(Map(results.labels, features.pixels, 0, 1, features.pixels), None)
    count = counted(span, fused, META)
    tl.store(results.counts + number * META.C + offs_c, count, mask=offs_c < META.C)
    if results.partial is not None:
        store_sums(span, (total,), fused, META)


def target_pass(call: TargetPassCall, *ready: Tensor, in_parts: bool = False) -> tuple[Tensor, ...]:
    """Losses (C,), sums (C, D), counts (C,); fused labels, measure and log-sum-exp (B, P).

    The last results are the targets with transferred labels where they had no mass, and the
    gradient of the summed loss; empty where not wanted. In parts, the first three are those of
    each program, (S, C), (S, C, D) and (S, C).
    """
    features, targets, prototypes = call.features, call.targets, call.prototypes
    images, channels, pixels = features.shape
    acc, transfer = accumulation_dtype(features), call.transfer
    labels = features.new_empty(images, pixels, dtype=torch.int64)
    values, lse = (features.new_empty(images, pixels, dtype=acc) for _ in range(2))
    filled = features.new_empty(0)
    if targets is not None and transfer:
        filled = targets.new_empty(targets.shape)
    classes = prototypes.shape[0]
    if images * pixels == 0:
        losses, sums = (features.new_zeros(classes, *d, dtype=acc) for d in ((), (channels,)))
        gradient = torch.zeros_like(features) if call.wants_gradient else features.new_empty(0)
        by_class = losses, sums, losses.clone()
        if in_parts:
            by_class = losses[None], sums[None], by_class[2][None]
        return *by_class, labels, values, lse, filled, gradient
    tables = tables_of(call, ready)
    confidence = call.measure == "confidence"
    one_product = not transfer or (call.nearest is None and confidence)
    meta, how = plan("target_pass", features, classes)
    # A tile of more channels than a block is read faster than a slot is added to, but for few
    # channels of float32, whose products take longer than its reads.
    few = meta.OPERANDS == "wide" and channels <= FEW_CHANNELS
    at_once = call.wants_sums and (meta.BLOCK_D >= channels or few)
    span = span_of(images, channels, pixels, features.element_size(), classes)
    if meta.BLOCK_D >= channels:
        span = long_span(span, images, pixels)
    meta = meta._replace(
        SIMILARITY="cosine",
        CONFIDENCE=confidence,
        TRANSFER=transfer,
        TWO_PRODUCTS=tables.own is not None and not one_product,
        NORMALIZE=call.normalize,
        UNWEIGHTED=not call.normalize,
        IGNORE_INDEX=call.ignore_index,
        SPAN=span,
        GROUP_D=max(channels, meta.BLOCK_D),
    )
    programs = images * tile_count(pixels, span)
    partial = None
    if at_once:
        partial = features.new_empty(programs, classes, channels, dtype=acc)
    count, lost = (features.new_empty(programs, classes, dtype=acc) for _ in range(2))
    moved = torch.empty_like(labels) if filled.numel() else None
    # Triton 3.7 fails to compile a float64 product of what was loaded in 16 bits.
    wide = targets.double() if targets is not None and acc == torch.float64 else targets
    arguments = (
        map_of(features), Given(map_of(call.static), map_of(wide), call.filling),
        tables, Threshold(*halves(call.threshold)),
        Results(labels, moved, values, lse, partial, count, lost),
    )  # fmt: skip
    run(Launch(target_pass_kernel, programs, arguments, meta, how), features)
    if partial is not None:
        sums = partial
    elif call.wants_sums:
        given = features, labels, None, classes, call.normalize, False, call.ignore_index
        sums, count = class_sums(ClassSumsCall(*given), in_parts)
    else:
        sums = features.new_zeros(1, classes, channels, dtype=acc)
    by_class = lost, sums, count
    if not in_parts:
        by_class = lost.sum(dim=0), sums.sum(dim=0), count.sum(dim=0)
    if targets is not None and moved is not None:
        mass = 1 if call.filling is None else call.filling.to(targets.dtype)
        rows = torch.arange(classes, device=moved.device)[:, None]
        filled = torch.where(moved[:, None] == rows, mass, targets).contiguous()
    gradient = features.new_empty(0)
    if call.wants_gradient:
        contrast = call.of_losses(call.contrasted(labels, filled))
        gradient, _ = contrast_backward(torch.ones_like(lse), contrast, (True, False), lse)
    return *by_class, labels, values, lse, filled, gradient
