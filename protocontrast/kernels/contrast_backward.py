"""Gradients of the contrast: (M4) to the features and, in partial sums, to the prototypes.

Where a tile of all channels fits a program (BLOCK_D >= D) the features are read once; else the
second read of a tile, moments after the first, comes from cache. Programs that keep the prototypes
take one of both gradients.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.backward import add_to_slot, keeps_prototypes, send_back
from protocontrast.kernels.class_prototypes import finite, halves_joined
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes
from protocontrast.kernels.scores import (
    add_pulls,
    add_scores,
    kept_of,
    kept_scores,
    load_blocks,
    logits_of,
    no_pulls,
    pulls_of,
    pushes_of,
    read_scores,
    to_features,
    to_kept_features,
    to_rows,
    waited_for,
)
from protocontrast.kernels.targets import masses, own_class, targets_of
from protocontrast.kernels.tiles import (
    flat,
    from_channel,
    inside,
    load_pixels,
    load_tile,
    map_of,
    span_at,
    store_tile,
    tile_at,
    tile_of,
)


class Upstream(NamedTuple):
    """A map of the losses' gradient (B, P), and the log-sum-exp of each pixel."""

    grad_output: Any
    lse: Any


def upstream_of(grad_output: Tensor, lse: Tensor) -> Upstream:
    """Both as kernels take them."""
    return Upstream(map_of(grad_output), lse.contiguous())


@triton.jit
def returned(upstream, tile, ACC: tl.constexpr):
    """What comes back to each pixel of a tile, and its log-sum-exp, [BLOCK_P]."""
    lse = tl.load(upstream.lse + flat(tile), mask=inside(tile), other=float("inf"))
    return load_pixels(upstream.grad_output, tile).to(ACC), lse


class Slopes(NamedTuple):
    """Of a tile: d loss / d product [BLOCK_P, BLOCK_C] but for the classes' scale, what to take off
    along the pixel [BLOCK_P], its inverse length, and whether it has a gradient [BLOCK_P, 1]."""

    products: Any
    radial: Any
    inverse: Any
    kept: Any


@triton.jit
def pushed(softmax, targets, tile, table, META: tl.constexpr):
    """d loss / d logit [BLOCK_P, BLOCK_C] by a pixel's softmax, and its weight [BLOCK_P]."""
    offs_c = tl.arange(0, META.BLOCK_C)
    share = table + 2 * META.BLOCK_C
    if targets.labels.pointer.dtype.element_ty.is_floating():
        mass, weight = masses(targets, tile, tl.load(share + offs_c), META)
        return softmax * weight[:, None] - mass, weight
    else:
        label, weight = own_class(targets, tile, share, META)
        own = label[:, None] == offs_c[None, :]
        return tl.where(own, softmax - 1.0, softmax) * weight[:, None], weight


@triton.jit
def slopes_of(total, length, tile, given, prepared, classes, META: tl.constexpr):
    """The slopes of a tile of pixels from its products and what they are divided by.

    `given` are the targets and what comes back to their losses.
    """
    targets, upstream = given
    logits, inverse = logits_of(total, length, classes.scale, META)
    grad_output, lse = returned(upstream, tile, META.ACC)
    softmax = tl.exp(logits + classes.offset[None, :] - lse[:, None])
    grad_logits, weight = pushed(softmax, targets, tile, prepared.table, META)
    # An ignored pixel's features and what comes back to it may be anything, and so may the
    # features of a pixel to which nothing comes back: neither has a gradient.
    used = (weight != 0.0) & (grad_output != 0.0)
    kept = used[:, None]
    grad_logits = tl.where(kept, grad_logits * grad_output[:, None], 0.0)
    radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    if META.SIMILARITY == "cosine":
        # No slope times a logit that is NaN is NaN.
        radial = tl.where(used, tl.sum(grad_logits * logits * inverse, axis=1), 0.0)
    products = tl.where(kept, grad_logits * inverse, 0.0)
    return Slopes(products, radial, tl.where(kept, inverse, 0.0), kept)


@triton.jit
def send_tile_back(tile, given, prepared, kept, gradient, META: tl.constexpr):
    """The gradient of a tile, of which a program has all channels at hand."""
    PARTS: tl.constexpr = (META.D + META.BLOCK_D - 1) // META.BLOCK_D
    blocks = load_blocks(tile, META)
    total, length = kept_scores(blocks, tile, kept.factors, META, True)
    slopes = slopes_of(total, length, tile, given, prepared, kept.classes, META)
    pushes, unit = pushes_of(slopes.products * kept.classes.scale[None, :], blocks[0].dtype, META)
    for part in tl.static_range(PARTS):
        block, factor = blocks[part], kept.factors[part]
        block = tl.where(slopes.kept, block, tl.zeros_like(block))
        found = to_kept_features(block, pushes, unit, slopes.radial, slopes.inverse, factor, META)
        here, offs_d = from_channel(gradient, part * META.BLOCK_D), tl.arange(0, META.BLOCK_D)
        store_tile(here, tile, offs_d, found, META.D - part * META.BLOCK_D)


@triton.jit
def sum_span(features, given, prepared, kept, partial, META: tl.constexpr):
    """The partial sums of SPAN pixels, in tiles of which a program has all channels at hand.

    All is summed as if it were finite, and once more, with care, where the sums are not: 0 times
    NaN is NaN, and so an ignored pixel may have reached them.
    """
    PARTS: tl.constexpr = (META.D + META.BLOCK_D - 1) // META.BLOCK_D
    FEW: tl.constexpr = constants(META, BLOCK_P=16, BLOCK_D=32, PROGRAMS=0)
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    slot = partial + tl.program_id(0).to(tl.int64) * META.C * META.D
    sums = ()
    for _ in tl.static_range(PARTS):
        sums = sums + (no_pulls(META),)  # type: ignore[assignment]  # noqa: RUF005
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        blocks = load_blocks(tile, META)
        total, length = kept_scores(blocks, tile, kept.factors, META, True)
        slopes = slopes_of(total, length, tile, given, prepared, kept.classes, META)
        pulls, size = pulls_of(slopes.products, blocks[0].dtype, META)
        added = ()
        for part in tl.static_range(PARTS):
            more = waited_for(add_pulls(sums[part], blocks[part], pulls, size, META))
            added = added + (more,)  # type: ignore[assignment]  # noqa: RUF005
        sums = added
    doubt = 0
    for part in tl.static_range(PARTS):
        offs_d = part * META.BLOCK_D + tl.arange(0, META.BLOCK_D)
        add_to_slot(slot, halves_joined(sums[part], META), offs_d, 0, META.C, META.D)
        doubt += tl.max((~finite(sums[part])).to(tl.int32))
    if doubt > 0:
        # The slot's elements may belong to other threads than those that stored them last.
        tl.debug_barrier()
        send_span_back(features, given, prepared, kept, None, partial, FEW)


@triton.jit
def send_span_back(features, given, prepared, kept, gradient, partial, META: tl.constexpr):
    """The gradients of SPAN pixels, in tiles whose channels are read block by block."""
    RESIDENT: tl.constexpr = META.BLOCK_D >= META.D
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    every_d = tl.arange(0, META.BLOCK_D)
    classes = kept.classes
    if partial is not None:
        slot = partial + tl.program_id(0).to(tl.int64) * META.C * META.D
        if RESIDENT:
            whole = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        if RESIDENT:
            block = load_tile(tile, every_d, META)
            total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
            total, squared = add_scores(block, total, squared, prepared.matrix, every_d, META)
            length = lengths_of(total, squared, tile, prepared.matrix, META)
        else:
            total, length = read_scores(tile, prepared.matrix, META)
        slopes = slopes_of(total, length, tile, given, prepared, classes, META)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + every_d
            if not RESIDENT:
                block = load_tile(tile, offs_d, META)
            if gradient is not None:
                slope = slopes.products * classes.scale[None, :]
                part = to_features(
                    block, slope, slopes.radial, slopes.inverse, prepared.matrix, offs_d, META
                )
                store_tile(gradient, tile, offs_d, tl.where(slopes.kept, part, 0.0), META.D)
            if partial is not None:
                # A product mixes pixels: what an ignored one holds must not reach it.
                clean = tl.where(slopes.kept, block, tl.zeros_like(block))
                part = to_rows(clean, slopes.products, prepared.matrix, offs_d, META)
                if RESIDENT:
                    whole += part
                else:
                    add_to_slot(slot, part, offs_d, step, META.C, META.D)
        if partial is not None and not RESIDENT:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if partial is not None and RESIDENT:
        add_to_slot(slot, whole, every_d, 0, META.C, META.D)


@triton.jit
def contrast_backward_kernel(
    features, prepared, gradient, partial, walk, given, meta: tl.constexpr
):
    """One program per SPAN pixels of one image; one that keeps the prototypes sums over them, or
    has every `programs`th tile instead, whose gradient it takes."""
    META: tl.constexpr = constants(meta)
    kept = kept_of(prepared, META)
    if META.PROGRAMS > 0 and partial is not None:
        sum_span(features, given, prepared, kept, partial, META)
    elif META.PROGRAMS > 0:
        tiles, programs = walk
        for number in range(tl.program_id(0), tiles, programs):
            tile = tile_of(features, number, META)
            send_tile_back(tile, given, prepared, kept, gradient, META)
    else:
        send_span_back(features, given, prepared, kept, gradient, partial, META)


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, bool], lse: Tensor, *ready: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of features and prototypes from those of the losses (B, P)."""
    given = Prototypes.of(call, *ready)
    arguments = ((targets_of(call), upstream_of(grad_output, lse)),)

    def sent(wants: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        row = "contrast_backward_both" if wants[1] else "contrast_backward"
        kernel, ignored = contrast_backward_kernel, call.ignore_index
        return send_back(kernel, row, call.features, given, arguments, ignored, wants)

    if all(wants) and keeps_prototypes("contrast_backward_both", call.features, given):
        # A program that keeps them has no registers for both gradients of a tile.
        return sent((True, False))[0], sent((False, True))[1]
    return sent(wants)
