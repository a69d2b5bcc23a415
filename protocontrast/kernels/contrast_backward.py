"""Gradients of the contrast: (M4) to the features and, in partial sums, to the prototypes.

Where a tile of all channels fits a program (BLOCK_D >= D) the features are read once; else the
second read of a tile, moments after the first, comes from cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.kernels.backward import add_to_slot, send_back, store_gradient
from protocontrast.kernels.contrast import pixel_arguments
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.prototypes import Prototypes
from protocontrast.kernels.scores import add_scores, logits_of, read_scores, to_rows
from protocontrast.kernels.targets import masses


@triton.jit
def contrast_backward_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    grad_output_ptr, stride_ub, stride_up, gradient_ptr, stride_gb, stride_gd, stride_gp,
    matrix_ptr, table_ptr, lse_ptr, partial_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    WANTS_FEATURES: tl.constexpr, WANTS_PROTOTYPES: tl.constexpr, SPAN: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
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
    image_ptr = features_ptr + image * stride_xb
    slot_ptr = partial_ptr
    if WANTS_PROTOTYPES:
        slot_ptr = partial_ptr + tl.program_id(0).to(tl.int64) * C * D
        if RESIDENT:
            whole = tl.zeros([BLOCK_D, BLOCK_C], dtype=ACC)
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
            total, squared = add_scores(
                tile, tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC), tl.zeros([BLOCK_P], dtype=ACC),
                matrix_ptr, tl.arange(0, BLOCK_D),
                SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
            )  # fmt: skip
        else:
            total, squared = read_scores(
                image_ptr, stride_xd, stride_xp, offs_p, pixels, matrix_ptr,
                SIMILARITY, OPERANDS, PRECISION, ACC, C, D, ROW, BLOCK_C, BLOCK_D, BLOCK_P,
            )  # fmt: skip
        length = lengths_of(
            total, squared, image_ptr, stride_xd, stride_xp, offs_p, pixels, matrix_ptr,
            SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
        logits, inverse = logits_of(total, length, scale, SIMILARITY, ACC)
        lse = tl.load(lse_ptr + image * pixels + offs_p, mask=inside, other=float("inf"))
        grad_output = tl.load(
            grad_output_ptr + image * stride_ub + offs_p.to(tl.int64) * stride_up,
            mask=inside,
            other=0.0,
        ).to(ACC)
        # An ignored pixel's features and what comes back to it may be anything, and so may the
        # features of a pixel to which nothing comes back: neither has a gradient.
        kept = (weight != 0.0) & (grad_output != 0.0)
        softmax = tl.exp(logits + offset[None, :] - lse[:, None])
        grad_logits = (softmax * weight[:, None] - mass) * grad_output[:, None]
        grad_logits = tl.where(kept[:, None], grad_logits, 0.0)
        radial = tl.zeros([BLOCK_P], dtype=ACC)
        if SIMILARITY == "cosine":
            radial = tl.sum(grad_logits * logits * inverse, axis=1)
        grad_logits *= inverse
        grad_logits = tl.where(kept[:, None], grad_logits, 0.0)
        for start in range(0, D, BLOCK_D):
            offs_d = start + tl.arange(0, BLOCK_D)
            if not RESIDENT:
                tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
            if WANTS_FEATURES:
                store_gradient(
                    tile, grad_logits * scale[None, :], radial, inverse, kept, matrix_ptr,
                    gradient_ptr + image * stride_gb, stride_gd, stride_gp, offs_p, offs_d, pixels,
                    SIMILARITY, OPERANDS, PRECISION, ACC, C, D, ROW, BLOCK_C,
                )  # fmt: skip
            if WANTS_PROTOTYPES:
                # A product mixes pixels: what an ignored one holds must not reach it.
                clean = tl.where(kept[:, None], tile, tl.zeros_like(tile))
                part = to_rows(
                    clean, grad_logits, matrix_ptr, offs_d,
                    SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
                )  # fmt: skip
                if RESIDENT:
                    whole += part
                else:
                    add_to_slot(slot_ptr, part, offs_d, step, C, D)
        if WANTS_PROTOTYPES and not RESIDENT:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if WANTS_PROTOTYPES and RESIDENT:
        add_to_slot(slot_ptr, whole, tl.arange(0, BLOCK_D), 0, C, D)


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, bool], lse: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of features and prototypes from those of the losses (B, P)."""
    arguments, constants = pixel_arguments(call)
    return send_back(
        contrast_backward_kernel,
        "contrast_backward_both" if wants[1] else "contrast_backward",
        call.features,
        Prototypes.of(call),
        {
            **arguments,
            "grad_output_ptr": grad_output,
            "stride_ub": grad_output.stride(0),
            "stride_up": grad_output.stride(1),
            "lse_ptr": lse.contiguous(),
        },
        {**constants, "IGNORE_INDEX": call.ignore_index},
        wants,
    )
