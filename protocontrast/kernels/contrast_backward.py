"""Gradients of the contrast: (M4) to the features and, in partial sums, to the prototypes.

Where a tile of all channels fits a program (BLOCK_D >= D) the features are read once; else the
second read of a tile, moments after the first, comes from cache.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.backward import add_to_slot, send_back
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes
from protocontrast.kernels.scores import (
    add_scores,
    classes_of,
    logits_of,
    read_scores,
    to_features,
    to_rows,
)
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import (
    flat,
    inside,
    load_pixels,
    load_tile,
    map_of,
    span_at,
    store_tile,
    tile_at,
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


@triton.jit
def contrast_backward_kernel(
    features, prepared, gradient, partial, targets, upstream, meta: tl.constexpr
):
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    META: tl.constexpr = constants(meta)
    RESIDENT: tl.constexpr = META.BLOCK_D >= META.D
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    every_d = tl.arange(0, META.BLOCK_D)
    classes = classes_of(prepared.table, META)
    if partial is not None:
        slot = partial + tl.program_id(0).to(tl.int64) * META.C * META.D
        if RESIDENT:
            whole = tl.zeros([META.BLOCK_D, META.BLOCK_C], dtype=META.ACC)
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        mass, weight = masses(targets, tile, classes.share, META)
        if RESIDENT:
            block = load_tile(tile, every_d, META)
            total = tl.zeros([META.BLOCK_P, META.BLOCK_C], dtype=META.ACC)
            squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
            total, squared = add_scores(block, total, squared, prepared.matrix, every_d, META)
            length = lengths_of(total, squared, tile, prepared.matrix, META)
        else:
            total, length = read_scores(tile, prepared.matrix, None, META)
        logits, inverse = logits_of(total, length, classes.scale, META)
        grad_output, lse = returned(upstream, tile, META.ACC)
        # An ignored pixel's features and what comes back to it may be anything, and so may the
        # features of a pixel to which nothing comes back: neither has a gradient.
        kept = (weight != 0.0) & (grad_output != 0.0)
        softmax = tl.exp(logits + classes.offset[None, :] - lse[:, None])
        grad_logits = (softmax * weight[:, None] - mass) * grad_output[:, None]
        grad_logits = tl.where(kept[:, None], grad_logits, 0.0)
        radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        if META.SIMILARITY == "cosine":
            radial = tl.sum(grad_logits * logits * inverse, axis=1)
        grad_logits *= inverse
        grad_logits = tl.where(kept[:, None], grad_logits, 0.0)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + every_d
            if not RESIDENT:
                block = load_tile(tile, offs_d, META)
            if gradient is not None:
                slope = grad_logits * classes.scale[None, :]
                part = to_features(block, slope, radial, inverse, prepared.matrix, offs_d, META)
                store_tile(gradient, tile, offs_d, tl.where(kept[:, None], part, 0.0), META.D)
            if partial is not None:
                # A product mixes pixels: what an ignored one holds must not reach it.
                clean = tl.where(kept[:, None], block, tl.zeros_like(block))
                part = to_rows(clean, grad_logits, prepared.matrix, offs_d, META)
                if RESIDENT:
                    whole += part
                else:
                    add_to_slot(slot, part, offs_d, step, META.C, META.D)
        if partial is not None and not RESIDENT:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if partial is not None and RESIDENT:
        add_to_slot(slot, whole, every_d, 0, META.C, META.D)


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, bool], lse: Tensor, *ready: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of features and prototypes from those of the losses (B, P)."""
    return send_back(
        contrast_backward_kernel,
        "contrast_backward_both" if wants[1] else "contrast_backward",
        call.features,
        Prototypes.of(call, *ready),
        (targets_of(call), upstream_of(grad_output, lse)),
        call.ignore_index,
        wants,
    )
