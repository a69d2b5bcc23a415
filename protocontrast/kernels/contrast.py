"""Contrast of pixels and prototypes: (M3), (M5) for `pixel_prototype_contrast`, forward.

One read of the features; labels, weights, normalisation and softmax stay inside. Its gradients are
in contrast_backward.py.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall, ContrastCall, DistributionCall
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    feature_arguments,
    options,
    run,
    tile_count,
)
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.prototypes import Prepared, Prototypes, prepare
from protocontrast.kernels.scores import logits_of, read_scores
from protocontrast.kernels.targets import masses


@triton.jit
def contrast_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    matrix_ptr, table_ptr, loss_ptr, mass_ptr, lse_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per tile of BLOCK_P pixels of one image."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_c = tl.arange(0, BLOCK_C)
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
    share = tl.load(table_ptr + 2 * BLOCK_C + offs_c)
    mass, weight = masses(
        labels_ptr + image * stride_lb, stride_lc, stride_lp,
        weight_ptr + image * stride_wb if WEIGHTED else weight_ptr, stride_wp,
        offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
    )  # fmt: skip
    logits, _ = logits_of(total, length, scale, SIMILARITY, ACC)
    logits += offset[None, :]
    peak = tl.max(logits, axis=1)
    lse = peak + tl.log(tl.sum(tl.exp(logits - peak[:, None]), axis=1))
    target_logit = tl.sum(tl.where(mass == 0.0, 0.0, mass * logits), axis=1)
    # An ignored pixel may hold NaN, which stays in its own row of the products and ends here.
    ignored = weight == 0.0
    loss = tl.where(ignored, 0.0, weight * lse - target_logit)
    into = image * pixels + offs_p
    inside = offs_p < pixels
    tl.store(loss_ptr + into, loss, mask=inside)
    tl.store(mass_ptr + into, weight, mask=inside)
    # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
    tl.store(lse_ptr + into, tl.where(ignored, float("inf"), lse), mask=inside)


def pixel_arguments(
    call: ContrastCall | DistributionCall | ClassSumsCall,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run-time arguments and constants of features (B, D, P), labels and weights of any strides."""
    features, labels, pixel_weight = call.features, call.labels, call.pixel_weight
    soft, weighted = labels.is_floating_point(), pixel_weight is not None
    if features.dtype == torch.float64:
        # Triton 3.7 fails to compile a float64 product of what was loaded in 16 bits.
        labels = labels.double() if soft else labels
        pixel_weight = None if pixel_weight is None else pixel_weight.double()
    arguments = {
        **feature_arguments(features),
        "labels_ptr": labels,
        "stride_lb": labels.stride(0),
        "stride_lc": labels.stride(1) if soft else 0,
        "stride_lp": labels.stride(-1),
        "weight_ptr": pixel_weight,
        "stride_wb": 0 if pixel_weight is None else pixel_weight.stride(0),
        "stride_wp": 0 if pixel_weight is None else pixel_weight.stride(1),
    }
    return arguments, {"SOFT": soft, "WEIGHTED": weighted}


def prepared_arguments(prepared: Prepared) -> dict[str, Any]:
    """Run-time arguments of prepared prototypes."""
    return {"matrix_ptr": prepared.matrix, "table_ptr": prepared.table}


def contrast(call: ContrastCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    features = call.features
    images, channels, pixels = features.shape
    acc = accumulation_dtype(features)
    loss, mass, lse = (features.new_empty(images, pixels, dtype=acc) for _ in range(3))
    if images * pixels == 0:
        return loss, mass, lse
    prepared = prepare(features, Prototypes.of(call))
    arguments, constants = pixel_arguments(call)
    outputs = {"loss_ptr": loss, "mass_ptr": mass, "lse_ptr": lse}
    config = configuration(
        "contrast", family(features), features.element_size(), channels, len(call.prototypes)
    )
    launch = Launch(
        contrast_kernel,
        images * tile_count(pixels, config.block_p),
        {**arguments, **prepared_arguments(prepared), **outputs},
        {
            **prepared.constants,
            **constants,
            "IGNORE_INDEX": call.ignore_index,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    return loss, mass, lse
