"""Nearest prototype, its confidence and the thresholds in one read: (M6) for `transfer_labels`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import TransferCall
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.contrast import prepared_arguments
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    feature_arguments,
    halves,
    options,
    run,
    tile_count,
)
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.prototypes import Prepared, Prototypes, prepare
from protocontrast.kernels.scores import logits_of, read_scores


@triton.jit
def nearest_of(logits, offset, lowest_equal, CONFIDENCE: tl.constexpr, BLOCK_C: tl.constexpr):
    """Label, measure [BLOCK_P] and whether a class is present, from logits with their offset."""
    peak = tl.max(logits, axis=1)
    # Equal prototypes have equal logits but for rounding; the lowest of them takes the pixel.
    candidates = tl.where(logits == peak[:, None], lowest_equal[None, :], BLOCK_C)
    label = tl.min(candidates, axis=1).to(tl.int32)
    if CONFIDENCE:
        value = 1.0 / tl.sum(tl.exp(logits - peak[:, None]), axis=1)
    else:
        value = peak
    # The maximum passes over NaN.
    unread = tl.sum((logits != logits).to(tl.int32), axis=1) > 0
    somewhere = tl.sum((offset == 0.0).to(tl.int32), axis=0) > 0
    value = tl.where(somewhere, value, 0.0)
    return label, tl.where(unread, float("nan"), value), somewhere


@triton.jit
def transfer_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp, matrix_ptr, table_ptr,
    threshold_ptr, stride_t, threshold_high, threshold_low, label_ptr, value_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    CONFIDENCE: tl.constexpr, PER_CLASS: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per tile of BLOCK_P pixels of one image."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_c = tl.arange(0, BLOCK_C)
    lowest_equal = tl.load(table_ptr + 3 * BLOCK_C + offs_c)
    total, squared = read_scores(
        features_ptr + image * stride_xb, stride_xd, stride_xp, offs_p, pixels, matrix_ptr,
        SIMILARITY, OPERANDS, PRECISION, ACC, C, D, ROW, BLOCK_C, BLOCK_D, BLOCK_P,
    )  # fmt: skip
    length = lengths_of(
        total, squared, features_ptr + image * stride_xb, stride_xd, stride_xp, offs_p, pixels,
        matrix_ptr, SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
    )  # fmt: skip
    scale = tl.load(table_ptr + offs_c)
    offset = tl.load(table_ptr + BLOCK_C + offs_c)
    logits, _ = logits_of(total, length, scale, SIMILARITY, ACC)
    logits += offset[None, :]
    label, value, somewhere = nearest_of(logits, offset, lowest_equal, CONFIDENCE, BLOCK_C)
    if PER_CLASS:
        thresholds = tl.load(threshold_ptr + offs_c * stride_t, mask=offs_c < C, other=0.0)
        chosen = label[:, None] == offs_c[None, :]
        limit = tl.sum(tl.where(chosen, thresholds.to(ACC)[None, :], 0.0), axis=1)
    else:
        # Two float32 numbers, for a float64 one would be rounded on the way into a kernel.
        limit = tl.full([BLOCK_P], threshold_high, ACC) + tl.full([BLOCK_P], threshold_low, ACC)
    kept = (value >= limit) & somewhere
    into = image * pixels + offs_p
    inside = offs_p < pixels
    tl.store(label_ptr + into, tl.where(kept, label.to(tl.int64), IGNORE_INDEX), mask=inside)
    tl.store(value_ptr + into, value, mask=inside)


def nearest_table(call: TransferCall) -> Prepared:
    """Prototypes of a transfer made ready, with the lowest class among equal ones."""
    # The similarity itself is wanted exactly, so 1/tau stays out of it.
    scale = call.temperature if call.measure == "confidence" else 1.0
    given = Prototypes(call.prototypes, call.present, None, call.similarity, scale)
    return prepare(call.features, given, equals=True)


def transfer(call: TransferCall) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features, class_threshold = call.features, call.class_threshold
    images, channels, pixels = features.shape
    labels = features.new_empty(images, pixels, dtype=torch.int64)
    values = features.new_empty(images, pixels, dtype=accumulation_dtype(features))
    if images * pixels == 0:
        return labels, values
    prepared = nearest_table(call)
    config = configuration(
        "transfer", family(features), features.element_size(), channels, len(call.prototypes)
    )
    threshold_high, threshold_low = halves(call.threshold)
    launch = Launch(
        transfer_kernel,
        images * tile_count(pixels, config.block_p),
        {
            **feature_arguments(features),
            **prepared_arguments(prepared),
            "threshold_ptr": class_threshold,
            "stride_t": 0 if class_threshold is None else class_threshold.stride(0),
            "threshold_high": threshold_high,
            "threshold_low": threshold_low,
            "label_ptr": labels,
            "value_ptr": values,
        },
        {
            **prepared.constants,
            "CONFIDENCE": call.measure == "confidence",
            "PER_CLASS": class_threshold is not None,
            "IGNORE_INDEX": call.ignore_index,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    return labels, values
