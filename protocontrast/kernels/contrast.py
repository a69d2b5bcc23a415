"""Contrast of pixels and prototypes: (M3), (M5) for `pixel_prototype_contrast`, forward.

One read of the features; labels, weights, normalisation and softmax stay inside. Its gradients are
in contrast_backward.py.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.launch import Launch, accumulation_dtype, plan, run, tile_count
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes, prepare
from protocontrast.kernels.scores import classes_of, logits_of, read_scores
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import flat, inside, map_of, own_tile


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
def store_statistics(statistics, tile, mass, weight, scores, lse):
    """Loss and statistics of a tile: `scores` [BLOCK_P, BLOCK_C] is what pulls a pixel."""
    target_logit = tl.sum(tl.where(mass == 0.0, 0.0, mass * scores), axis=1)
    # An ignored pixel may hold NaN, which stays in its own row of the products and ends here.
    ignored = weight == 0.0
    loss = tl.where(ignored, 0.0, weight * lse - target_logit)
    tl.store(statistics.loss + flat(tile), loss, mask=inside(tile))
    tl.store(statistics.mass + flat(tile), weight, mask=inside(tile))
    # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
    lse = tl.where(ignored, float("inf"), lse)
    tl.store(statistics.lse + flat(tile), lse, mask=inside(tile))


@triton.jit
def contrast_kernel(features, targets, prepared, statistics, meta: tl.constexpr):
    """One program per tile of BLOCK_P pixels of one image."""
    META: tl.constexpr = constants(meta)
    tile = own_tile(features, META)
    total, squared = read_scores(tile, prepared.matrix, META)
    length = lengths_of(total, squared, tile, prepared.matrix, META)
    classes = classes_of(prepared.table, META)
    mass, weight = masses(targets, tile, classes.share, META)
    logits, _ = logits_of(total, length, classes.scale, META)
    logits += classes.offset[None, :]
    store_statistics(statistics, tile, mass, weight, logits, normaliser_of(logits))


def empty_statistics(features: Tensor) -> Statistics:
    """Room for them."""
    images, _, pixels = features.shape
    acc = accumulation_dtype(features)
    return Statistics(*(features.new_empty(images, pixels, dtype=acc) for _ in range(3)))


def contrast(call: ContrastCall, *ready: Tensor) -> Statistics:
    """Loss, weight and log-sum-exp of every pixel; `ready` are matrix and table of the classes."""
    features, statistics = call.features, empty_statistics(call.features)
    if statistics.loss.numel():
        prepared = prepare(features, Prototypes.of(call, *ready))
        meta, how = plan("contrast", features, len(call.prototypes))
        meta = meta._replace(SIMILARITY=call.similarity, IGNORE_INDEX=call.ignore_index)
        arguments = map_of(features), targets_of(call), prepared, statistics
        programs = len(features) * tile_count(features.shape[2], meta.BLOCK_P)
        run(Launch(contrast_kernel, programs, arguments, meta, how), features)
    return statistics
