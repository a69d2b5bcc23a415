"""Gradients of the contrast with class distributions, (D3): to the features and, in partial sums,
to means and variances.

As in contrast_backward.py, with a second gradient: that of the softmax alone meets the squares.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import DistributionCall
from protocontrast.kernels.backward import add_to_slot, store_part
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.contrast import pixel_arguments
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    options,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.prototypes import Prototypes, finish
from protocontrast.kernels.scores import to_features, weighted_sum
from protocontrast.kernels.spreads import (
    add_parts,
    along_spread,
    parts_of,
    prepare_both,
    read_parts,
    squares_to_rows,
    tables_of,
)
from protocontrast.kernels.targets import masses


@triton.jit
def distribution_contrast_backward_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    grad_output_ptr, stride_ub, stride_up, gradient_ptr, stride_gb, stride_gd, stride_gp,
    matrix_ptr, table_ptr, spread_ptr, breadth_ptr, lse_ptr,
    mean_sums_ptr, square_sums_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, SPREAD_OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    WANTS_FEATURES: tl.constexpr, WANTS_PROTOTYPES: tl.constexpr, WANTS_VARIANCE: tl.constexpr,
    SPAN: tl.constexpr, C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    RESIDENT: tl.constexpr = BLOCK_D >= D
    spans = tl.cdiv(pixels, SPAN)
    image = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * SPAN
    offs_c = tl.arange(0, BLOCK_C)
    scale = tl.load(table_ptr + offs_c)
    offset = tl.load(table_ptr + BLOCK_C + offs_c)
    share = tl.load(table_ptr + 2 * BLOCK_C + offs_c)
    breadth = tl.load(breadth_ptr + offs_c)
    image_ptr = features_ptr + image * stride_xb
    slot = tl.program_id(0).to(tl.int64) * C * D
    for step in range(0, SPAN, BLOCK_P):
        offs_p = first + step + tl.arange(0, BLOCK_P)
        inside = offs_p < pixels
        mass, weight = masses(
            labels_ptr + image * stride_lb, stride_lc, stride_lp,
            weight_ptr + image * stride_wb if WEIGHTED else weight_ptr, stride_wp,
            offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
        )  # fmt: skip
        if RESIDENT:
            tile = load_tile(
                image_ptr, stride_xd, stride_xp, offs_p, tl.arange(0, BLOCK_D), pixels, D
            )
            total, squared, bonus = add_parts(
                tile, tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC), tl.zeros([BLOCK_P], dtype=ACC),
                tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC),
                matrix_ptr, spread_ptr, tl.arange(0, BLOCK_D),
                SIMILARITY, OPERANDS, SPREAD_OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
            )  # fmt: skip
        else:
            total, squared, bonus = read_parts(
                image_ptr, stride_xd, stride_xp, offs_p, pixels, matrix_ptr, spread_ptr,
                SIMILARITY, OPERANDS, SPREAD_OPERANDS, PRECISION, ACC,
                C, D, ROW, BLOCK_C, BLOCK_D, BLOCK_P,
            )  # fmt: skip
        scores, bonus, inverse = parts_of(
            total, squared, bonus, scale, breadth, image_ptr, stride_xd, stride_xp, offs_p, pixels,
            matrix_ptr, spread_ptr, SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
        lse = tl.load(lse_ptr + image * pixels + offs_p, mask=inside, other=float("inf"))
        grad_output = tl.load(
            grad_output_ptr + image * stride_ub + offs_p.to(tl.int64) * stride_up,
            mask=inside,
            other=0.0,
        ).to(ACC)
        # An ignored pixel's features and what comes back to it may be anything, and so may the
        # features of a pixel to which nothing comes back: neither has a gradient.
        kept = (weight != 0.0) & (grad_output != 0.0)
        softmax = tl.exp(scores + bonus + offset[None, :] - lse[:, None])
        push = tl.where(kept[:, None], softmax * weight[:, None] * grad_output[:, None], 0.0)
        grad_logits = tl.where(kept[:, None], push - mass * grad_output[:, None], 0.0)
        radial = tl.zeros([BLOCK_P], dtype=ACC)
        if SIMILARITY == "cosine":
            along = grad_logits * scores + 2 * push * bonus
            radial = tl.sum(along * inverse, axis=1)
            grad_logits = tl.where(kept[:, None], grad_logits * inverse, 0.0)
        # What an ignored pixel holds may have no length.
        over = tl.where(kept[:, None], inverse, 0.0)
        for start in range(0, D, BLOCK_D):
            offs_d = start + tl.arange(0, BLOCK_D)
            if not RESIDENT:
                tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
            if WANTS_FEATURES:
                part = to_features(
                    tile, grad_logits * scale[None, :], radial, inverse, matrix_ptr, offs_d,
                    SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
                )  # fmt: skip
                part += along_spread(
                    tile.to(ACC) * inverse, push * breadth[None, :] * inverse, spread_ptr, offs_d,
                    SPREAD_OPERANDS, PRECISION, ACC, ROW, BLOCK_C,
                )  # fmt: skip
                store_part(
                    part, kept, gradient_ptr + image * stride_gb, stride_gd, stride_gp,
                    offs_p, offs_d, pixels, D,
                )  # fmt: skip
            # A product mixes pixels: what an ignored one holds must not reach it.
            clean = tl.where(kept[:, None], tile, tl.zeros_like(tile))
            if WANTS_PROTOTYPES:
                rows = weighted_sum(clean, grad_logits, OPERANDS, PRECISION, ACC)
                add_to_slot(mean_sums_ptr + slot, rows, offs_d, step, C, D)
            if WANTS_VARIANCE:
                directions = clean.to(ACC) * over
                rows = squares_to_rows(directions, push, SPREAD_OPERANDS, PRECISION, ACC)
                add_to_slot(square_sums_ptr + slot, rows, offs_d, step, C, D)
        if WANTS_PROTOTYPES or WANTS_VARIANCE:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()


def distribution_contrast_backward(
    grad_output: Tensor, call: DistributionCall, wants: tuple[bool, bool, bool], lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(D3) gradients of features, prototypes and variance from those of the losses (B, P)."""
    features, prototypes, variance = call.features, call.prototypes, call.variance
    wants_features, wants_prototypes, wants_variance = wants
    images, channels, pixels = features.shape
    classes, width = len(prototypes), features.element_size()
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    if images * pixels == 0:
        return (
            gradient,
            torch.zeros_like(prototypes) if wants_prototypes else prototypes.new_empty(0),
            torch.zeros_like(variance) if wants_variance else variance.new_empty(0),
        )
    both, constants = prepare_both(call)
    tables = wants_prototypes + wants_variance
    row = "distribution_contrast_backward_both" if tables else "distribution_contrast_backward"
    config = configuration(row, family(features), width, channels, classes)
    span = config.block_p
    if tables:
        span = span_of(images, channels, pixels, width, tables * classes)
    slots = images * tile_count(pixels, span)

    def partial(wanted: bool) -> Tensor | None:
        shape, acc = (slots, classes, channels), accumulation_dtype(features)
        return features.new_empty(shape, dtype=acc) if wanted else None

    of_means, of_squares = partial(wants_prototypes), partial(wants_variance)
    arguments, targets = pixel_arguments(call)
    strides = gradient.stride() if wants_features else (0, 0, 0)
    launch = Launch(
        distribution_contrast_backward_kernel,
        slots,
        {
            **arguments,
            **both,
            "grad_output_ptr": grad_output,
            "stride_ub": grad_output.stride(0),
            "stride_up": grad_output.stride(1),
            "gradient_ptr": gradient if wants_features else None,
            "stride_gb": strides[0],
            "stride_gd": strides[1],
            "stride_gp": strides[2],
            "lse_ptr": lse.contiguous(),
            "mean_sums_ptr": of_means,
            "square_sums_ptr": of_squares,
        },
        {
            **constants,
            **targets,
            "IGNORE_INDEX": call.ignore_index,
            "WANTS_FEATURES": wants_features,
            "WANTS_PROTOTYPES": wants_prototypes,
            "WANTS_VARIANCE": wants_variance,
            "SPAN": span,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)

    def finished(sums: Tensor | None, given: Prototypes) -> Tensor:
        if sums is None:
            return given.rows.new_empty(0)
        return finish(features, sums.sum(dim=0), given)

    means, variances = tables_of(call)
    return gradient, finished(of_means, means), finished(of_squares, variances)
