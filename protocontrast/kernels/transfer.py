"""Nearest prototype, its confidence and the thresholds in one read: (M6) for `transfer_labels`."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import TransferCall, accumulation_dtype
from protocontrast.kernels.launch import Launch, halves, plan, run, walkers
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prepared, Prototypes, prepare
from protocontrast.kernels.scores import kept_of, logits_of, scores_of
from protocontrast.kernels.tiles import flat, inside, map_of, tile_of, vector_of


class Threshold(NamedTuple):
    """One number in two halves, and in its stead a vector of one per class, or None."""

    high: Any
    low: Any
    by_class: Any = None


@triton.jit
def nearest_of(logits, offset, table, META: tl.constexpr):
    """Label, measure [BLOCK_P] and whether a class is present, from logits with their offset."""
    lowest_equal = tl.load(table + 3 * META.BLOCK_C + tl.arange(0, META.BLOCK_C))
    peak = tl.max(logits, axis=1)
    # Equal prototypes have equal logits but for rounding; the lowest of them takes the pixel.
    candidates = tl.where(logits == peak[:, None], lowest_equal[None, :], META.BLOCK_C)
    label = tl.min(candidates, axis=1).to(tl.int32)
    if META.CONFIDENCE:
        value = 1.0 / tl.sum(tl.exp(logits - peak[:, None]), axis=1)
    else:
        # The maximum passes over NaN, which the sum does not.
        unread = tl.sum((logits != logits).to(tl.int32), axis=1) > 0
        value = tl.where(unread, float("nan"), peak)
    somewhere = tl.sum((offset == 0.0).to(tl.int32), axis=0) > 0
    return label, tl.where(somewhere | (value != value), value, 0.0), somewhere


@triton.jit
def limit_of(threshold, label, META: tl.constexpr):
    """What the measure is to reach, [BLOCK_P]."""
    if threshold.by_class is not None:
        # A pixel with NaN has no label.
        known = tl.where(label < META.C, label, 0)
        return tl.load(threshold.by_class.pointer + known * threshold.by_class.stride).to(META.ACC)
    else:
        # Two float32 numbers, for a float64 one would be rounded on the way into a kernel.
        high = tl.full([META.BLOCK_P], threshold.high, META.ACC)
        return high + tl.full([META.BLOCK_P], threshold.low, META.ACC)


@triton.jit
def transfer_tile(number, features, prepared, kept, threshold, found, META: tl.constexpr):
    """One tile of BLOCK_P pixels of one image."""
    tile = tile_of(features, number, META)
    total, length = scores_of(tile, prepared, kept, META)
    logits, _ = logits_of(total, length, kept.classes.scale, META)
    logits += kept.classes.offset[None, :]
    label, value, somewhere = nearest_of(logits, kept.classes.offset, prepared.table, META)
    kept = (value >= limit_of(threshold, label, META)) & somewhere
    label = tl.where(kept, label.to(tl.int64), META.IGNORE_INDEX)
    labels, values = found
    tl.store(labels + flat(tile), label, mask=inside(tile))
    tl.store(values + flat(tile), value, mask=inside(tile))


@triton.jit
def transfer_kernel(features, prepared, threshold, found, walk, meta: tl.constexpr):
    """One program per tile; one that keeps the prototypes has every `programs`th of them."""
    META: tl.constexpr = constants(meta)
    kept = kept_of(prepared, META)
    tiles, programs = walk
    if META.PROGRAMS == 0:
        number = tl.program_id(0)
        transfer_tile(number, features, prepared, kept, threshold, found, META)
    else:
        for number in range(tl.program_id(0), tiles, programs):
            transfer_tile(number, features, prepared, kept, threshold, found, META)


def nearest_table(call: TransferCall) -> Prepared:
    """Prototypes of a transfer made ready, with the lowest class among equal ones."""
    # The similarity itself is wanted exactly, so 1/tau stays out of it.
    scale = call.temperature if call.measure == "confidence" else 1.0
    given = Prototypes(call.prototypes, call.present, None, call.similarity, scale)
    return prepare(call.features, given, equals=True)


def transfer(call: TransferCall) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features = call.features
    images, _, pixels = features.shape
    labels = features.new_empty(images, pixels, dtype=torch.int64)
    values = features.new_empty(images, pixels, dtype=accumulation_dtype(features))
    if images * pixels == 0:
        return labels, values
    prepared = nearest_table(call)
    keeps = call.similarity != "euclidean"
    meta, how = plan(
        "transfer", features, len(call.prototypes), keeps=keeps,
        SIMILARITY=call.similarity, CONFIDENCE=call.measure == "confidence",
        IGNORE_INDEX=call.ignore_index,
    )  # fmt: skip
    threshold = Threshold(*halves(call.threshold), vector_of(call.class_threshold))
    walk = walkers(features, meta)
    arguments = map_of(features), prepared, threshold, (labels, values), walk
    run(Launch(transfer_kernel, walk[1], arguments, meta, how), features)
    return labels, values
