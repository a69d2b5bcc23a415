"""Gradients of the contrast: (M4) to the features and, in partial sums, to the prototypes.

Where a tile of all channels fits a program (BLOCK_D >= D) the features are read once; else the
second read of a tile, moments after the first, comes from cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.backward import OfPixels, add_to_slot, keeps_for_few, send_back
from protocontrast.kernels.contrast_spans import send_kept_span_back, send_kept_tiles_back
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes
from protocontrast.kernels.scores import (
    add_scores,
    kept_of,
    read_scores,
    to_features,
    to_rows,
)
from protocontrast.kernels.slope_sums import slope_sums
from protocontrast.kernels.slopes import slopes_left, slopes_of, upstream_of
from protocontrast.kernels.targets import targets_of
from protocontrast.kernels.tiles import (
    load_tile,
    span_at,
    store_tile,
    tile_at,
)


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
        if prepared.logits is not None:
            slopes = slopes_left(tile, given, prepared, classes, META)
        elif RESIDENT:
            block = load_tile(tile, every_d, META)
            total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
            total, squared = add_scores(block, total, squared, prepared.matrix, every_d, META)
            length = lengths_of(total, squared, tile, prepared.matrix, META)
        else:
            total, length = read_scores(tile, prepared.matrix, META)
        if prepared.logits is None:
            slopes = slopes_of(total, length, tile, given, prepared, classes, META)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + every_d
            if not RESIDENT or prepared.logits is not None:
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
    """One program per SPAN pixels of one image; of those that keep the prototypes, where nothing is
    summed, one has every `programs`th tile instead."""
    META: tl.constexpr = constants(meta)
    kept = kept_of(prepared, META)
    if META.PROGRAMS > 0 and partial is not None:
        FEW: tl.constexpr = constants(META, BLOCK_P=16, BLOCK_D=32, PROGRAMS=0)
        if send_kept_span_back(features, given, prepared, kept, gradient, partial, META):
            # The slot's elements may belong to other threads than those that stored them last.
            tl.debug_barrier()
            send_span_back(features, given, prepared, kept, None, partial, FEW)
    elif META.PROGRAMS > 0:
        send_kept_tiles_back(features, given, prepared, kept, gradient, walk, META)
    else:
        send_span_back(features, given, prepared, kept, gradient, partial, META)


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, bool], lse: Tensor, *ready: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of features and prototypes from those of the losses (B, P)."""
    features, given = call.features, Prototypes.of(call, *ready)
    targets, ignored = (targets_of(call), upstream_of(grad_output, lse)), call.ignore_index
    of_pixels = OfPixels((targets,), ignored, soft=call.labels.is_floating_point())

    def sent(wants: tuple[bool, bool], row: str = "contrast_backward") -> tuple[Tensor, Tensor]:
        return send_back(contrast_backward_kernel, row, features, given, of_pixels, wants)

    if ready[3:] and ready[3].numel():
        gradient, total = features.new_empty(0), given.rows.new_empty(0)
        if wants[0]:
            gradient, _ = sent((True, False), "contrast_backward_left")
        if wants[1]:
            total = slope_sums(features, given, targets, ignored)
        return gradient, total
    both = "contrast_backward_both"
    if all(wants) and keeps_for_few(both, features, given):
        # A single tile is no pipeline: each gradient for itself has more programs, or registers.
        return sent((True, False))[0], sent((False, True), both)[1]
    return sent(wants, both) if wants[1] else sent(wants)
