"""Logits of every pixel against every prototype: (M2) for `prototype_logits`, and the way back."""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import LogitsCall
from protocontrast.kernels.backward import add_to_slot, send_back, store_gradient
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.contrast import prepared_arguments
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
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.prototypes import Prototypes, prepare
from protocontrast.kernels.scores import logits_of, read_scores, to_rows


@triton.jit
def logits_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp, matrix_ptr, table_ptr, logits_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
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
    logits, _ = logits_of(total, length, scale, SIMILARITY, ACC)
    tl.store(
        logits_ptr + (image * C + offs_c[None, :]) * pixels + offs_p[:, None],
        tl.where(offset[None, :] == 0.0, logits, float("-inf")),
        mask=(offs_p[:, None] < pixels) & (offs_c[None, :] < C),
    )


@triton.jit
def logits_backward_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    grad_output_ptr, stride_ub, stride_uc, stride_up, gradient_ptr, stride_gb, stride_gd, stride_gp,
    matrix_ptr, table_ptr, partial_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    WANTS_FEATURES: tl.constexpr, WANTS_PROTOTYPES: tl.constexpr, SPAN: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    spans = tl.cdiv(pixels, SPAN)
    image = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * SPAN
    offs_c = tl.arange(0, BLOCK_C)
    scale = tl.load(table_ptr + offs_c)
    offset = tl.load(table_ptr + BLOCK_C + offs_c)
    image_ptr = features_ptr + image * stride_xb
    slot_ptr = partial_ptr
    if WANTS_PROTOTYPES:
        slot_ptr = partial_ptr + tl.program_id(0).to(tl.int64) * C * D
    for step in range(0, SPAN, BLOCK_P):
        offs_p = first + step + tl.arange(0, BLOCK_P)
        inside = offs_p < pixels
        total, squared = read_scores(
            image_ptr, stride_xd, stride_xp, offs_p, pixels, matrix_ptr,
            SIMILARITY, OPERANDS, PRECISION, ACC, C, D, ROW, BLOCK_C, BLOCK_D, BLOCK_P,
        )  # fmt: skip
        length = lengths_of(
            total, squared, image_ptr, stride_xd, stride_xp, offs_p, pixels, matrix_ptr,
            SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
        logits, inverse = logits_of(total, length, scale, SIMILARITY, ACC)
        grad_output = tl.load(
            grad_output_ptr
            + image * stride_ub
            + offs_c[None, :].to(tl.int64) * stride_uc
            + offs_p[:, None].to(tl.int64) * stride_up,
            mask=inside[:, None] & (offs_c[None, :] < C),
            other=0.0,
        ).to(ACC)
        # The logit of an absent class is -inf whatever the pixel, so nothing comes back from it.
        grad_logits = tl.where(offset[None, :] == 0.0, grad_output, 0.0)
        radial = tl.zeros([BLOCK_P], dtype=ACC)
        if SIMILARITY == "cosine":
            radial = tl.sum(grad_logits * logits * inverse, axis=1)
        grad_logits *= inverse
        for start in range(0, D, BLOCK_D):
            offs_d = start + tl.arange(0, BLOCK_D)
            tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
            if WANTS_FEATURES:
                store_gradient(
                    tile, grad_logits * scale[None, :], radial, inverse, inside, matrix_ptr,
                    gradient_ptr + image * stride_gb, stride_gd, stride_gp, offs_p, offs_d, pixels,
                    SIMILARITY, OPERANDS, PRECISION, ACC, C, D, ROW, BLOCK_C,
                )  # fmt: skip
            if WANTS_PROTOTYPES:
                part = to_rows(
                    tile, grad_logits, matrix_ptr, offs_d,
                    SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
                )  # fmt: skip
                add_to_slot(slot_ptr, part, offs_d, step, C, D)
        if WANTS_PROTOTYPES:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()


def _prototypes(call: LogitsCall) -> Prototypes:
    return Prototypes(call.prototypes, call.present, None, call.similarity, call.temperature)


def logits(call: LogitsCall) -> Tensor:
    """(B, C, P); absent classes -inf."""
    features = call.features
    images, channels, pixels = features.shape
    classes, acc = len(call.prototypes), accumulation_dtype(features)
    out = features.new_empty(images, classes, pixels, dtype=acc)
    if images * pixels == 0:
        return out
    prepared = prepare(features, _prototypes(call))
    width = features.element_size()
    config = configuration("logits", family(features), width, channels, classes)
    launch = Launch(
        logits_kernel,
        images * tile_count(pixels, config.block_p),
        {**feature_arguments(features), **prepared_arguments(prepared), "logits_ptr": out},
        {**prepared.constants, "BLOCK_D": config.block_d, "BLOCK_P": config.block_p},
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    return out


def logits_backward(
    grad_output: Tensor, call: LogitsCall, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes from that of the logits (B, C, P)."""
    arguments = {
        **feature_arguments(call.features),
        "grad_output_ptr": grad_output,
        "stride_ub": grad_output.stride(0),
        "stride_uc": grad_output.stride(1),
        "stride_up": grad_output.stride(2),
    }
    return send_back(
        logits_backward_kernel, "logits_backward", call.features, _prototypes(call),
        arguments, {}, wants,
    )  # fmt: skip
