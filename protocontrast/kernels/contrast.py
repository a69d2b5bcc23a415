"""Contrast of pixels and prototypes: (M3), (M5) for `pixel_prototype_contrast`, forward.

One read of the features; labels, weights, normalisation and softmax stay inside. Its gradients are
in contrast_backward.py.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall, accumulation_dtype
from protocontrast.kernels.class_pieces import (
    kept_pieces,
    logits_in_pieces,
    normaliser_of_pieces,
    pull_of_pieces,
    taken_in_pieces,
)
from protocontrast.kernels.launch import Launch, plan, run, walkers
from protocontrast.kernels.lengths import leave_lengths
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes, prepare_with_lengths
from protocontrast.kernels.scores import kept_of, logits_of, scores_of
from protocontrast.kernels.targets import masses, own_class, targets_of
from protocontrast.kernels.tiles import flat, inside, map_of, store_tile, tile_of


class Statistics(NamedTuple):
    """What a contrast leaves of every pixel, each (B, P): loss, weight and log-sum-exp.

    The last is +inf where a pixel is ignored.
    """

    loss: Any
    mass: Any
    lse: Any


@triton.jit
def normaliser_of(logits):
    """The log-sum-exp [BLOCK_P] of logits, against the largest."""
    peak = tl.max(logits, axis=1)
    return peak + tl.log(tl.sum(tl.exp(logits - peak[:, None]), axis=1))


@triton.jit
def pull_of(targets, tile, table, scores, META: tl.constexpr):
    """What `scores` [BLOCK_P, BLOCK_C] pull a pixel with, and its weight, both [BLOCK_P]."""
    offs_c = tl.arange(0, META.BLOCK_C)
    share = table + 2 * META.BLOCK_C
    if targets.labels.pointer.dtype.element_ty.is_floating():
        mass, weight = masses(targets, tile, tl.load(share + offs_c), META)
        return tl.sum(tl.where(mass == 0.0, 0.0, mass * scores), axis=1), weight
    else:
        label, weight = own_class(targets, tile, share, META)
        own = tl.sum(tl.where(label[:, None] == offs_c[None, :], scores, 0.0), axis=1)
        return weight * own, weight


@triton.jit
def store_statistics(statistics, tile, pull, weight, lse):
    """Loss and statistics of a tile from what `pull_of` found and the log-sum-exp."""
    # An ignored pixel may hold NaN, which stays in its own row of the products and ends here.
    ignored = weight == 0.0
    loss = tl.where(ignored, 0.0, weight * lse - pull)
    tl.store(statistics.loss + flat(tile), loss, mask=inside(tile))
    tl.store(statistics.mass + flat(tile), weight, mask=inside(tile))
    # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
    lse = tl.where(ignored, float("inf"), lse)
    tl.store(statistics.lse + flat(tile), lse, mask=inside(tile))


@triton.jit
def contrast_tile(number, features, targets, prepared, kept, statistics, META: tl.constexpr):
    """One tile of BLOCK_P pixels of one image."""
    tile = tile_of(features, number, META)
    total, length = scores_of(tile, prepared, kept, META)
    leave_lengths(length, tile, prepared, META)
    logits, _ = logits_of(total, length, kept.classes.scale, META)
    if prepared.logits is not None:
        store_tile(prepared.logits, tile, tl.arange(0, META.BLOCK_C), logits, META.C)
    logits += kept.classes.offset[None, :]
    pull, weight = pull_of(targets, tile, prepared.table, logits, META)
    store_statistics(statistics, tile, pull, weight, normaliser_of(logits))


@triton.jit
def contrast_tile_of_many(
    number, features, targets, prepared, factors, statistics, META: tl.constexpr
):
    """The same of more than 128 classes."""
    tile = tile_of(features, number, META)
    logits = logits_in_pieces(tile, prepared, factors, META)
    pull, weight = pull_of_pieces(targets, tile, prepared.table, logits, META)
    store_statistics(statistics, tile, pull, weight, normaliser_of_pieces(logits, META))


@triton.jit
def contrast_kernel(features, targets, prepared, statistics, tiles, programs, meta: tl.constexpr):
    """One program per tile; one that keeps the prototypes has every `programs`th of them."""
    META: tl.constexpr = constants(meta)
    first = tl.program_id(0)
    if taken_in_pieces(META):
        factors = kept_pieces(prepared.matrix, META)
        for number in range(first, tiles, programs):
            contrast_tile_of_many(number, features, targets, prepared, factors, statistics, META)
    else:
        kept = kept_of(prepared, META)
        if META.PROGRAMS == 0:
            contrast_tile(first, features, targets, prepared, kept, statistics, META)
        else:
            for number in range(first, tiles, programs):
                contrast_tile(number, features, targets, prepared, kept, statistics, META)


def empty_statistics(features: Tensor) -> Statistics:
    """Room for them."""
    images, _, pixels = features.shape
    acc = accumulation_dtype(features)
    return Statistics(*(features.new_empty(images, pixels, dtype=acc) for _ in range(3)))


def contrast(call: ContrastCall, *ready: Tensor) -> Statistics:
    """Loss, weight and log-sum-exp of every pixel; `ready` are matrix and table of the classes, and
    maybe room for lengths."""
    features, statistics = call.features, empty_statistics(call.features)
    if statistics.loss.numel():
        prepared = prepare_with_lengths(features, Prototypes.of(call, *ready))
        classes = call.prototypes.shape[0]
        # Distances have no use for what is kept, and soft targets of many classes no room beside.
        keeps = call.similarity != "euclidean"
        keeps = keeps and (classes <= 128 or not call.labels.is_floating_point())
        crowded = call.similarity == "dot" and classes > 128
        meta, how = plan(
            "contrast", features, classes, keeps=keeps, crowded=crowded,
            SIMILARITY=call.similarity, IGNORE_INDEX=call.ignore_index,
        )  # fmt: skip
        tiles, programs = walkers(features, meta)
        arguments = map_of(features), targets_of(call), prepared, statistics, tiles, programs
        run(Launch(contrast_kernel, programs, arguments, meta, how), features)
    return statistics
